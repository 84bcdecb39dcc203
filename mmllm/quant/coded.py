"""A weight as it ships: codes and scales. What training writes, bundles hold and engines read.

Plain numpy, as `grid` and `packing`: no runtime needs JAX for it.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int8

from mmllm.quant import grid as grid_lib

TABLE = "table"  # last name of an embedding: one row, and one output channel, a token


@dataclasses.dataclass(frozen=True)
class Coded:
    """A quantized matrix.

    Attributes:
      codes: output channels first, which is how runtimes store a matrix.
      scale: one an output channel, float32.
      grid: a name of `grid.GRIDS`.
    """

    codes: Int8[np.ndarray, "o i"]
    scale: Float[np.ndarray, "o"]
    grid: str


def is_weight(path: str) -> bool:
    """Whether a parameter is what a matrix product, a convolution or a lookup reads."""
    return path.rsplit("/", 1)[-1] in ("kernel", TABLE)


def is_table(path: str) -> bool:
    """Whether a parameter has its output channels first already."""
    return path.rsplit("/", 1)[-1] == TABLE


def floats(path: str, coded: Coded) -> Float[np.ndarray, "x y"]:
    """A coded weight as the float32 it stands for, in the shape of the parameter."""
    value = grid_lib.dequantize(coded.codes.T, coded.scale, grid_lib.GRIDS[coded.grid])
    return value.T if is_table(path) else value
