"""Bytes by hand, and that unpacking undoes packing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmllm.quant import packing


def test_four_codes_of_two_bits_make_a_byte_the_first_in_the_low_bits():
    # -2, -1, 0, 1 are 10, 11, 00, 01 in two's complement.
    packed = packing.pack(np.array([-2, -1, 0, 1], np.int8), 2)
    assert packed.tolist() == [0b01_00_11_10]


def test_two_codes_of_four_bits_make_a_byte_the_first_in_the_low_bits():
    assert packing.pack(np.array([-8, 7], np.int8), 4).tolist() == [0b0111_1000]


def test_eight_bits_are_kept_as_they_are():
    assert packing.pack(np.array([-128, -1, 127], np.int8), 8).tolist() == [128, 255, 127]


@st.composite
def codes_and_bits(draw):
    bits = draw(st.sampled_from(packing.PACKED_BITS))
    rows, width = draw(st.integers(0, 4)), draw(st.integers(0, 5)) * 8 // bits
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    codes = draw(hnp.arrays(np.int8, (rows, width), elements=st.integers(low, high)))
    return codes, bits


@given(codes_and_bits())
def test_unpacking_gives_back_what_was_packed(case):
    codes, bits = case
    packed = packing.pack(codes, bits)
    assert packed.nbytes * 8 == codes.size * bits
    np.testing.assert_array_equal(packing.unpack(packed, bits), codes)


def test_every_byte_is_two_bit_codes_by_plain_arithmetic():
    packed = np.arange(256, dtype=np.uint8)
    found = packing.unpack(packed[:, None], 2)
    for byte in range(256):
        digits = [byte // 4**place % 4 for place in range(4)]
        assert found[byte].tolist() == [digit - 4 if digit > 1 else digit for digit in digits]


@pytest.mark.parametrize("bits", [0, 1, 3, 16])
def test_other_bits_are_refused(bits):
    message = rf"^bits must be one of \(2, 4, 8\), got {bits}$"
    with pytest.raises(ValueError, match=message):
        packing.pack(np.zeros(8, np.int8), bits)
    with pytest.raises(ValueError, match=message):
        packing.unpack(np.zeros(8, np.uint8), bits)


def test_codes_that_do_not_fill_whole_bytes_are_refused():
    with pytest.raises(ValueError, match=r"last axis that is a multiple of 4, got \(2, 6\)"):
        packing.pack(np.zeros((2, 6), np.int8), 2)


@pytest.mark.parametrize("code", [-3, 2])
def test_a_code_out_of_range_is_refused(code):
    codes = np.array([0, 0, code, 1], np.int8)
    with pytest.raises(ValueError, match=r"^codes of 2 bits must be -2 to 1, got "):
        packing.pack(codes, 2)
