"""Packs small codes into bytes, for files and back. Plain numpy: no runtime needs JAX for it."""

import numpy as np
from jaxtyping import Int8, UInt8

PACKED_BITS = (2, 4, 8)


def pack(codes: Int8[np.ndarray, "*b d"], bits: int) -> UInt8[np.ndarray, "*b p"]:
    """Packs 8 / bits codes a byte, the first in the low bits, as two's complement.

    Args:
      codes: values from -2**(bits - 1) to 2**(bits - 1) - 1; the last axis fills whole bytes.
      bits: 2, 4 or 8.

    Raises:
      ValueError: other bits, a last axis that does not fill whole bytes, or a code out of range.

    Source: LiteRT schema, TensorType INT2 and INT4.
    """
    each = _each(bits)
    codes = np.asarray(codes)
    if codes.ndim == 0 or codes.shape[-1] % each:
        raise ValueError(
            f"codes must have a last axis that is a multiple of {each}, got {codes.shape}"
        )
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    # A code too large would lose its high bits and come back as another, without a word.
    if codes.size and not (low <= codes.min() and codes.max() <= high):
        raise ValueError(
            f"codes of {bits} bits must be {low} to {high}, got {codes.min()} to {codes.max()}"
        )
    # As unsigned and masked: the sign bits of a code must not spill over its neighbours.
    parts = (codes.astype(np.int8).view(np.uint8) & ((1 << bits) - 1)).reshape(
        *codes.shape[:-1], codes.shape[-1] // each, each
    )
    packed = np.zeros(parts.shape[:-1], np.uint8)
    for place in range(each):
        packed |= parts[..., place] << np.uint8(bits * place)
    return packed


def unpack(packed: UInt8[np.ndarray, "*b p"], bits: int) -> Int8[np.ndarray, "*b d"]:
    """Undoes `pack`.

    Raises:
      ValueError: bits that are not 2, 4 or 8.
    """
    each = _each(bits)
    packed = np.asarray(packed, np.uint8)
    # Up to the sign bit and back: the shift of a signed number repeats its sign.
    shifts = np.array([8 - bits * (place + 1) for place in range(each)], np.uint8)
    codes = (packed[..., None] << shifts).view(np.int8) >> np.int8(8 - bits)
    return codes.reshape(*packed.shape[:-1], packed.shape[-1] * each)


def _each(bits: int) -> int:
    if bits not in PACKED_BITS:
        raise ValueError(f"bits must be one of {PACKED_BITS}, got {bits}")
    return 8 // bits
