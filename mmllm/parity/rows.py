"""How far a layer or an output is from JAX, and how far it may be."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

TOLERANCE = 1e-3
"""Median relative error of a layer or an output, on top of what JAX against itself allows."""

MAX_ERROR = 5e-2
"""Largest relative error of one vector: in some, a rounding fell the other way."""

SELF_TIMES = 3.0
"""How many times as far from JAX as JAX is from itself an output may be."""


class ParityError(ValueError):
    """The LiteRT file differs from JAX by more than is allowed; the message names the layer."""


@dataclasses.dataclass(frozen=True)
class Row:
    """How far one layer or output is from JAX, over the vectors of its samples."""

    name: str
    samples: int
    median: float
    largest: float
    allowed: float | None

    @property
    def good(self) -> bool:
        """Whether it is near enough; a row without a limit always is."""
        if self.allowed is None:
            return True
        return self.median <= self.allowed and self.largest <= self.limit

    @property
    def limit(self) -> float:
        """What a single vector may differ by."""
        return max(MAX_ERROR, SELF_TIMES * (self.allowed or 0.0))


def relative(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Norm of the difference over the norm of the target, for each vector of the last axis.

    A vector much shorter than the others counts as a tenth as long as their mean.

    Raises:
      ParityError: shapes that differ, or a number that is not finite.
    """
    if prediction.shape != target.shape:
        raise ParityError(f"shape {prediction.shape} differs from {target.shape}")
    prediction, target = prediction.astype(np.float64), target.astype(np.float64)
    if not np.isfinite(prediction).all():
        raise ParityError("a number is not finite")
    vectors = (prediction - target, target)
    apart, length = (np.linalg.norm(each, axis=-1).reshape(-1) for each in vectors)
    # Without the floor, a vector of nearly nothing would decide over the whole row.
    return apart / np.maximum(np.maximum(length, 0.1 * length.mean()), 1e-12)


def row_of(
    name: str,
    samples: int,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    allowed: float | None = TOLERANCE,
) -> Row:
    """The row of a layer or output: the worst of its outputs, each (prediction, target)."""
    # The worst output, not the mean: a cache may be wrong where the logits are right.
    errors = [relative(prediction, target) for prediction, target in pairs]
    medians, largest = [np.median(each) for each in errors], [np.max(each) for each in errors]
    return Row(name, samples, float(max(medians)), float(max(largest)), allowed)


def named(kind: str, name: str, *values: Any) -> Row:
    """`row_of`, whose error says which layer or output it is."""
    try:
        return row_of(name, *values)
    except ParityError as error:
        raise ParityError(f"{kind} {name}: {error}") from error
