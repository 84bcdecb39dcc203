"""Corpus records as the benchmark sees them: draws of pictures, captions by language, batches.

Stands between `mmllm.data.sources` and the task measurements; a loader can be replaced, so that
tests measure small corpora in memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from mmllm.evaluate.metrics.caption import plain

BATCH = 64
DRAW_SEED = 1

Record = Mapping[str, Any]
Captions = dict[str, list[str]]
"""Captions of one picture by language code."""


@runtime_checkable
class Source(Protocol):
    """Random access to the records of a split."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...

    def __iter__(self) -> Iterator[Record]: ...


@runtime_checkable
class Corpora(Protocol):
    """What `mmllm.data.sources` offers: splits, with or without their pictures, and hashes."""

    def load(self, name: str, split: str, images: bool = True) -> Source:
        """Records of a split."""
        ...

    def describe(self, name: str) -> dict[str, Any]:
        """Where a corpus comes from, and its hash."""
        ...

    def is_built(self, name: str) -> bool:
        """Whether a corpus lies in the cache."""
        ...


def captions(record: Record) -> Captions:
    """Captions of a record by language; a corpus with one "caption" speaks English."""
    if "captions" not in record:
        return {"en": [str(record["caption"])]}
    by_language: Captions = {}
    # A list each, as a picture may have several captions in a language.
    for code, text in zip(record["languages"], record["captions"], strict=True):
        by_language.setdefault(str(code), []).append(str(text))
    return by_language


def all_captions(records: Iterable[Record]) -> list[Captions]:
    """Captions of every record of a split."""
    return [captions(record) for record in records]


def names(captions: Captions) -> list[str]:
    """English captions, lower-cased: what retrieval labels a picture with."""
    return [plain(text) for text in captions.get("en", [])]


def questions(record: Record) -> list[tuple[str, str, str]]:
    """Questions of a record with answer and kind; the kind is "" where a corpus has none."""
    kinds = list(record.get("kinds", ())) or [""] * len(record["questions"])
    rows = zip(record["questions"], record["answers"], kinds, strict=True)
    return [(str(question), str(answer), str(kind)) for question, answer, kind in rows]


def all_questions(records: Iterable[Record]) -> tuple[list[str], list[str], list[str]]:
    """Questions, answers and kinds of a whole split, parallel."""
    rows = [row for record in records for row in questions(record)]
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def keywords(record: Record) -> list[str]:
    """English keywords of a record; none where the corpus has none."""
    return [word for word in str(record.get("keywords", "")).split("|") if word]


def draw(count: int, most: int | None) -> list[int]:
    """Indices of at most `most` of `count` records, drawn with a fixed seed, in rising order."""
    if most is None or most >= count:
        return list(range(count))
    # The first of a permutation: a smaller draw is part of a larger one. Sorted, to read in order.
    return sorted(np.random.default_rng(DRAW_SEED).permutation(count)[:most].tolist())


def draw_names(candidates: set[str], most: int | None) -> list[str]:
    """At most `most` of the names, drawn with a fixed seed, sorted: the gallery of a search."""
    ordered = sorted(candidates)  # a set has another order in every process
    return [ordered[index] for index in draw(len(ordered), most)]


def batches(items: Any, size: int = BATCH) -> Iterator[Any]:
    """Consecutive slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def in_batches(
    source: Source,
    indices: Sequence[int],
    embed: Callable[[list[Any]], Float[np.ndarray, "b e"]],
) -> Float[np.ndarray, "n e"]:
    """Embeds the pictures of some records, holding one batch of them in memory at a time.

    Raises:
      ValueError: no records.
    """
    if not indices:
        raise ValueError("indices is empty: there is no picture to embed")
    return np.concatenate(
        [np.asarray(embed([source[i]["image"] for i in part])) for part in batches(indices)]
    )
