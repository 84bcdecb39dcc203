"""Corpora of a few pictures in memory, with a small dictionary and a quick teacher."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmllm.common.config import Config
from mmllm.data import sources
from mmllm.data.lexicons import wordnet
from mmllm.data.pipeline import TrainingArrays
from mmllm.train import pipeline, run
from mmllm.train.backbone import features
from mmllm.train.text import teacher
from tests import tiny_run, tiny_teacher

COLOURS = "red green blue yellow black white orange purple grey brown".split()
THINGS = "bus cat dog house tree circle square triangle apple car boat star fox quilt".split()
THINGS += "umbrella elephant mountain keyboard violin zeppelin jacket pyramid".split()
PICTURES = 3
CONFIG = dataclasses.replace(
    tiny_run.CONFIG,
    model=dataclasses.replace(tiny_run.CONFIG.model, vocab_size=400),
    data=dataclasses.replace(
        tiny_run.CONFIG.data, views={"emoji": 2, "stamps": 1}, dictionary_words=230
    ),
)


def noise(seed: int, *shape: int) -> np.ndarray:
    """Random pixels."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def asked(thing: str) -> dict[str, list[str]]:
    """Two questions about a thing."""
    return {"questions": [f"what is it? {thing}", "Is it?"], "answers": [thing, "yes"]}


def make() -> dict[str, list[dict[str, Any]]]:
    """The training split of each corpus."""

    def drawing(place: int, name: str, german: str) -> dict[str, Any]:
        captions = {"languages": ["de", "en"], "captions": [german, name]}
        return {"image": noise(place, 40, 40, 4), "keywords": "one|two", **captions}

    return {
        "emoji": [
            drawing(0, "bus", "Bus"),
            drawing(1, "Red fox", "roter Fuchs"),
            drawing(2, "cat " * 60, "Katze"),  # too long for the decoder
        ],
        "stamps": [drawing(3, "BUS", "Autobus"), drawing(4, "violin", "Geige")],
        "ocr_lines": [{"image": noise(5, 20, 60, 3), "text": text} for text in ("a b", "Z9")],
        "composites": [
            {"image": noise(6 + i, 48, 48, 3), "caption": f"a {thing}", **asked(thing)}
            for i, thing in enumerate(THINGS[:PICTURES])
        ],
        "easy_vqa": [{"image": noise(9, 48, 48, 3), **asked("star")}],
    }


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    """Puts them, a small dictionary and a quick teacher in the place of the real ones."""
    corpora = make()
    glosses = [(f"{colour} {thing}", f"a {thing}") for colour in COLOURS for thing in THINGS]
    monkeypatch.setenv("MMLLM_DATA", str(folder))
    monkeypatch.setattr(sources, "load", lambda name, split, images=True: corpora[name])
    monkeypatch.setattr(sources, "is_built", lambda name: True)
    splits = {"splits": {"train": PICTURES, "val": PICTURES}}
    monkeypatch.setattr(sources, "describe", lambda name: splits)
    monkeypatch.setattr(sources, "data_hash", lambda name: f"hash of {name}")
    monkeypatch.setattr(wordnet, "noun_glosses", lambda max_senses, categories: glosses)
    monkeypatch.setattr(teacher.SentenceTeacher, "load", tiny_teacher.Teacher)
    monkeypatch.setattr(features, "BATCH", 2)  # so that the last batch is not full
    return corpora


def prepared(config: Config = CONFIG, report: Any = lambda line: None) -> run.Run:
    """A run of the phases up to the features; its own folder is not touched."""
    made = run.Run(config=config, workdir=Path("nowhere"), report=report)
    pipeline.prepare_only(made)
    return made


def arrays(config: Config = CONFIG) -> TrainingArrays:
    """What a run of these corpora trains on."""
    found = prepared(config).arrays
    assert found is not None
    return found
