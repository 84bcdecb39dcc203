"""The dimension alphabet, used alike in jaxtyping annotations, einsum and einops strings.

b batch      t text tokens   n image tokens    s any sequence   d width      h heads
k head width f MLP width     v vocabulary      p packed bytes   e embedding  g key/value heads
y x          rows and columns of a picture     c channels       l text lines     i o inputs, outputs
w            the other axes of a weight
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Bool, Float, Float32, Int, Int8, Int32, UInt8

Params = Mapping[str, Any]
"""A nested mapping of names to arrays."""

__all__ = ["Array", "Bool", "Float", "Float32", "Int", "Int8", "Int32", "Params", "UInt8"]
