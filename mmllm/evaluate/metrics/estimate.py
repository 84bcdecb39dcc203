"""A score with its unit, sample size and bootstrap standard deviation.

Every metric is a function of sums over examples (hits and counts, edits and characters, n-gram
matches and totals), so one routine resamples them all. `mmllm.evaluate.tasks` builds estimates,
the result file stores them.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

RESAMPLES = 200
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Estimate:
    """One number of a result file.

    Attributes:
      value: the score.
      unit: "share" (0 to 1), "points" (CIDEr-D, 0 to 10) or another word.
      n: examples it was computed on.
      std: bootstrap standard deviation of the value, in the same unit.
    """

    value: float
    unit: str
    n: int
    std: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON, rounded."""
        return asdict(self) | {"value": round(self.value, 5), "std": round(self.std, 5)}


def ratio(sums: Float[np.ndarray, "2"]) -> float:
    """First sum over the second: the combination of every mean-like metric."""
    return float(sums[0] / sums[1])


def estimate(
    statistics: Float[np.ndarray, "n s"],
    combine: Callable[[np.ndarray], float] = ratio,
    *,
    unit: str = "share",
    groups: Sequence[object] | None = None,
) -> Estimate:
    """Computes a score and how much it would vary with another sample of pictures.

    Args:
      statistics: per example, the numbers whose sums over the examples determine the score.
      combine: sums (s,) -> score.
      unit: unit of the score.
      groups: one hashable an example; examples of one group (the questions about one picture) are
        drawn together. None resamples single examples.

    Returns:
      The estimate; its std comes from 200 resamples with a fixed seed.

    Raises:
      ValueError: no examples, or `groups` of another length.
    """
    statistics = np.asarray(statistics, np.float64)
    n = len(statistics)
    if n == 0:
        raise ValueError("statistics is empty: a score needs at least one example")
    clusters = statistics if groups is None else _sum_by_group(statistics, groups)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    # How often each cluster is drawn, instead of which: sums are then one matrix product.
    draws = rng.multinomial(len(clusters), np.full(len(clusters), 1 / len(clusters)), RESAMPLES)
    resampled = [combine(sums) for sums in draws.astype(np.float64) @ clusters]
    # The value is that of the sample itself; the resamples say only how much it varies.
    return Estimate(float(combine(statistics.sum(0))), unit, n, float(np.std(resampled)))


def mean(
    values: Sequence[float] | Float[np.ndarray, "n"],
    *,
    unit: str = "share",
    groups: Sequence[object] | None = None,
) -> Estimate:
    """Estimate of the mean of one value an example."""
    column = np.asarray(values, np.float64)
    return estimate(np.stack([column, np.ones_like(column)], 1), unit=unit, groups=groups)


def _sum_by_group(statistics: np.ndarray, groups: Sequence[object]) -> np.ndarray:
    if len(groups) != len(statistics):
        raise ValueError(f"groups must have {len(statistics)} entries, got {len(groups)}")
    index: dict[object, int] = {}
    rows = np.array([index.setdefault(group, len(index)) for group in groups])
    sums = np.zeros((len(index), statistics.shape[1]))
    np.add.at(sums, rows, statistics)
    return sums
