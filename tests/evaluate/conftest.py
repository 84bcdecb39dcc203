"""Small corpora in memory and a model that reads the answer from the pixels, right or wrong."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

NAMES = ("red bus", "cat", "two dogs", "green tree", "full moon", "sad face")
GERMAN = ("roter Bus", "Katze", "zwei Hunde", "grüner Baum", "Vollmond", "trauriges Gesicht")
LINES = ("hello world", "Open 24 h", "cat", "No. 5", "exit", "push")


def picture(code: int) -> np.ndarray:
    """A small picture whose colour is its code."""
    return np.full((4, 4, 3), code, np.uint8)


def code_of(image: np.ndarray) -> int:
    return int(image[0, 0, 0])


def captioned(code: int, family: str) -> dict[str, Any]:
    return {
        "id": f"{family}/{code}",
        "image": picture(code),
        "languages": ["en", "de"],
        "captions": [NAMES[code].title(), GERMAN[code]],
        "keywords": "thing|" + NAMES[code].split()[-1],
    }


def questioned(code: int) -> dict[str, Any]:
    return {
        "id": str(code),
        "image": picture(code),
        "questions": ["how many cats are there?", "is there a bus?"],
        "answers": [str(code), "yes" if code == 0 else "no"],
        "kinds": ["count", "exists"],
    }


def line(code: int) -> dict[str, Any]:
    return {
        "id": str(code),
        "image": picture(code),
        "text": LINES[code],
        "font": f"font {code % 2}",
    }


TABLES: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("emoji", "train"): [captioned(code, family) for family in "ab" for code in (0, 1, 2, 1)],
    ("emoji", "style_out"): [captioned(code, family) for family in "cd" for code in range(4)],
    ("emoji", "concept_out"): [captioned(code, family) for family in "ab" for code in (4, 5)],
    ("composites", "train"): [questioned(code) for code in (0, 1, 1)],
    ("composites", "test"): [questioned(code) for code in (0, 1, 2, 3)],
    ("ocr_lines", "train"): [line(code) for code in (4, 5)],
    ("ocr_lines", "unseen_print"): [line(code) for code in range(4)],
}


class Corpora:
    """The tables above behind the interface of the built corpora."""

    def __init__(self, missing: Sequence[str] = ()) -> None:
        self.missing = missing

    def load(self, name: str, split: str, images: bool = True) -> list[dict[str, Any]]:
        shown = (lambda key: True) if images else (lambda key: key != "image")
        return [{k: v for k, v in row.items() if shown(k)} for row in TABLES[name, split]]

    def describe(self, name: str) -> dict[str, Any]:
        splits = {split: len(rows) for (corpus, split), rows in TABLES.items() if corpus == name}
        return {"hash": name * 20, "splits": splits, "licences": {"MIT": 1}}

    def is_built(self, name: str) -> bool:
        return name not in self.missing


class Oracle:
    """Answers rightly, except about the codes in `wrong`, which it takes for a red bus.

    Args:
      wrong: picture codes it does not recognise.
    """

    manifest = {
        "name": "oracle",
        "config_sha256": "0" * 64,
        "tensor_classes": {
            "decoder": {"parameters": 3000, "bytes": 6000, "bits": 16},
            "encoder": {"parameters": 1000, "bytes": 2000, "bits": 16},
        },
    }

    def __init__(self, wrong: Sequence[int] = ()) -> None:
        self.wrong = wrong
        self.batches: list[int] = []

    def _seen(self, images: Sequence[np.ndarray]) -> list[int]:
        self.batches.append(len(images))
        return [0 if code_of(image) in self.wrong else code_of(image) for image in images]

    def caption_batch(self, images: Sequence[Any], language: str) -> list[str]:
        table = {"en": NAMES, "de": GERMAN}[language]
        return [table[code] for code in self._seen(images)]

    def read_lines_batch(self, line_images: Sequence[Any]) -> list[str]:
        return [LINES[code] for code in self._seen(line_images)]

    def answer_batch(self, images: Sequence[Any], questions: Sequence[str]) -> list[str]:
        return [
            str(code) if question.startswith("how many") else ("Yes." if code == 0 else "No.")
            for code, question in zip(self._seen(images), questions, strict=True)
        ]

    def embed_images(self, images: Sequence[Any]) -> np.ndarray:
        return np.eye(len(NAMES), dtype=np.float32)[self._seen(images)]

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.eye(len(NAMES), dtype=np.float32)[[NAMES.index(text) for text in texts]]


@pytest.fixture
def corpora() -> Corpora:
    """Returns the corpora in memory."""
    return Corpora()


@pytest.fixture
def oracle() -> type[Oracle]:
    """Returns the class of models that know the answers."""
    return Oracle


@pytest.fixture
def features() -> Any:
    """Returns a frozen network: the colour, and how dark it is."""

    def pooled(pictures: list[Any]) -> np.ndarray:
        return np.array([[code_of(p), 5.0 - code_of(p) ** 2] for p in pictures])

    return pooled
