"""Character and word error rate and exact lines: scores of read text.

Strings come from the runtime, references from the corpora; `mmllm.evaluate.tasks` calls these.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


def edit_distance(first: Sequence[object], second: Sequence[object]) -> int:
    """Levenshtein distance: insertions, deletions and substitutions cost 1 each."""
    if len(first) < len(second):
        first, second = second, first
    # One row of the table at a time, along the shorter sequence.
    row = list(range(len(second) + 1))
    for i, ours in enumerate(first, 1):
        corner, row[0] = row[0], i
        for j, theirs in enumerate(second, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (ours != theirs))
    return row[-1]


def plain(text: str) -> str:
    """Composed characters (NFC) and single spaces; case and punctuation count."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _pairs(predictions: Sequence[str], references: Sequence[str]) -> list[tuple[str, str]]:
    if len(predictions) != len(references):
        raise ValueError(
            f"predictions and references must be parallel, got {len(predictions)} and "
            f"{len(references)}"
        )
    pairs = [(plain(a), plain(b)) for a, b in zip(predictions, references, strict=True)]
    for index, (_, reference) in enumerate(pairs):
        if not reference:
            raise ValueError(f"references[{index}] is blank: an error rate needs characters")
    return pairs


def character_errors(
    predictions: Sequence[str], references: Sequence[str]
) -> Int[np.ndarray, "n 2"]:
    """Edits and reference characters of each line; CER is the ratio of their sums.

    Spaces are characters. The rate exceeds 1 where much is read that is not there.

    Raises:
      ValueError: sequences that are not parallel, or a blank reference.
    """
    rows = [(edit_distance(a, b), len(b)) for a, b in _pairs(predictions, references)]
    return np.array(rows, np.int64).reshape(len(rows), 2)


def word_errors(predictions: Sequence[str], references: Sequence[str]) -> Int[np.ndarray, "n 2"]:
    """Edits and reference words of each line, words split at spaces; WER is the ratio of sums."""
    pairs = _pairs(predictions, references)
    rows = [(edit_distance(a.split(), b.split()), len(b.split())) for a, b in pairs]
    return np.array(rows, np.int64).reshape(len(rows), 2)


def exact_lines(predictions: Sequence[str], references: Sequence[str]) -> Float[np.ndarray, "n"]:
    """1 where a whole line is read without error, else 0."""
    return np.array([float(a == b) for a, b in _pairs(predictions, references)])
