"""The grids a weight can lie on: small integers times one scale per output channel.

A level is (code + offset) * scale; every grid but `seq` has offset 0, which is what the runtimes
multiply. Plain numpy: no runtime needs JAX for it; `fake_quant` rounds alike in training.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int8


@dataclasses.dataclass(frozen=True)
class Grid:
    """A set of levels.

    Attributes:
      name: what a config calls it.
      bits: a code takes this many when packed.
      low: smallest code.
      high: largest code.
      offset: added to a code before it is scaled.
      gaussian: the scale that has the least squared error on weights of deviation 1.
    """

    name: str
    bits: int
    low: int
    high: int
    offset: float
    gaussian: float

    @property
    def top(self) -> float:
        """The largest level at scale 1: Qp of LSQ."""
        return self.high + self.offset

    @property
    def window(self) -> tuple[float, float]:
        """Ratios of weight to scale between which a weight gets a gradient.

        The outermost levels, as in LSQ; for `seq` half a step more, as in ParetoQ.
        """
        # The outer levels of `seq` hold weights half a step beyond them, as near as those inside.
        beyond = 0.5 if self.offset else 0.0
        return self.low + self.offset - beyond, self.top + beyond


GRIDS = {
    grid.name: grid
    for grid in (
        Grid("int2", 2, -2, 1, 0.0, 1.049),
        Grid("ternary", 2, -1, 1, 0.0, 1.225),
        # Source: ParetoQ (Liu et al., 2025), SEQ: four balanced levels, none of them zero.
        Grid("seq", 2, -2, 1, 0.5, 0.995),
        # Without -8 and -128, so that negating a channel stays on the grid.
        Grid("int4", 4, -7, 7, 0.0, 0.354),
        Grid("int8", 8, -127, 127, 0.0, 0.0309),
    )
}


def find(name: str) -> Grid:
    """The grid of a name.

    Raises:
      ValueError: there is none.
    """
    if name not in GRIDS:
        raise ValueError(f"grid must be one of {', '.join(GRIDS)}, got {name!r}")
    return GRIDS[name]


def quantize(
    weight: Float[np.ndarray, "*w o"], scale: Float[np.ndarray, "o"], grid: Grid
) -> Int8[np.ndarray, "*w o"]:
    """Weights -> codes, for export: infinities saturate.

    Args:
      weight: output channels on the last axis.
      scale: above 0, one an output channel.
      grid: where the codes come from.

    Raises:
      ValueError: a weight that is not a number, or a scale that is not finite and above 0.
    """
    weight, scale = np.asarray(weight, np.float32), np.asarray(scale, np.float32)
    if np.isnan(weight).any():
        raise ValueError(f"weight must be numbers, got {int(np.isnan(weight).sum())} NaN")
    if not (np.isfinite(scale) & (scale > 0)).all():
        bad = scale[~(np.isfinite(scale) & (scale > 0))][0]
        raise ValueError(f"scale must be finite and above 0, got {bad}")
    with np.errstate(over="ignore"):  # a ratio beyond float32 saturates like any other
        ratio = weight / scale
    return np.clip(np.round(ratio - grid.offset), grid.low, grid.high).astype(np.int8)


def dequantize(
    codes: Int8[np.ndarray, "*w o"], scale: Float[np.ndarray, "o"], grid: Grid
) -> Float[np.ndarray, "*w o"]:
    """Codes -> the weights they stand for, float32."""
    return (codes.astype(np.float32) + np.float32(grid.offset)) * np.asarray(scale, np.float32)
