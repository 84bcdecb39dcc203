"""Codes by hand: ties, saturation, infinities, and what is refused."""

import numpy as np
import pytest

from mmllm.quant import grid

INF = np.inf
# Ties go to the even code; halves of `seq` are ties of the shifted ratio.
BY_HAND = {
    "int2": ([-INF, -9, -2.5, -1.5, -0.5, 0.5, 0.51, 1.5, INF], [-2, -2, -2, -2, 0, 0, 1, 1, 1]),
    "ternary": ([-INF, -1.5, -0.51, -0.5, 0.0, 0.5, 0.6, 2, INF], [-1, -1, -1, 0, 0, 0, 1, 1, 1]),
    "seq": ([-INF, -2, -1.1, -1, -0.1, 0, 0.1, 1, 1.2, INF], [-2, -2, -2, -2, -1, 0, 0, 0, 1, 1]),
    "int4": ([-INF, -8, -7.4, -2.5, 0.5, 1.5, 6.5, 7.5, INF], [-7, -7, -7, -2, 0, 2, 6, 7, 7]),
    "int8": ([-INF, -128, -1.5, 126.5, 127.4, INF], [-127, -127, -2, 126, 127, 127]),
}


@pytest.mark.parametrize("name", grid.GRIDS)
def test_codes_are_those_worked_by_hand(name):
    ratio, codes = BY_HAND[name]
    for scale in (1.0, 0.25):
        weight = np.array(ratio, np.float32)[:, None] * scale
        found = grid.quantize(weight, np.array([scale]), grid.GRIDS[name])
        assert found[:, 0].tolist() == codes


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("int2", [-2.0, -1.0, 0.0, 1.0]),
        ("ternary", [-1.0, 0.0, 1.0]),
        ("seq", [-1.5, -0.5, 0.5, 1.5]),
    ],
)
def test_two_bits_have_these_levels(name, levels):
    each = grid.GRIDS[name]
    codes = np.arange(each.low, each.high + 1, dtype=np.int8)[:, None]
    found = grid.dequantize(codes, np.array([2.0]), each)
    assert found[:, 0].tolist() == [2.0 * level for level in levels]
    assert each.top == levels[-1]


@pytest.mark.parametrize("name", grid.GRIDS)
def test_weights_on_the_grid_come_back_exactly(name):
    each = grid.GRIDS[name]
    codes = np.arange(each.low, each.high + 1, dtype=np.int8)
    codes = np.stack([codes, codes[::-1]], axis=1)
    scale = np.array([0.37, 1e-3], np.float32)
    weight = grid.dequantize(codes, scale, each)
    np.testing.assert_array_equal(grid.quantize(weight, scale, each), codes)


@pytest.mark.parametrize("name", grid.GRIDS)
def test_every_code_fits_its_bits(name):
    each = grid.GRIDS[name]
    assert -(1 << (each.bits - 1)) <= each.low < each.high < 1 << (each.bits - 1)


@pytest.mark.parametrize("name", grid.GRIDS)
def test_the_gaussian_scale_has_the_least_error(name):
    # By numerical integration of the density, not by the code under test.
    each = grid.GRIDS[name]
    x = np.linspace(-7, 7, 140_001)
    density = np.exp(-x * x / 2)

    def error(scale):
        level = np.clip(np.round(x / scale - each.offset), each.low, each.high) + each.offset
        return np.sum(density * (level * scale - x) ** 2)

    assert error(each.gaussian) < min(error(each.gaussian * f) for f in (0.97, 1.03))


def test_what_is_no_number_is_refused():
    weight = np.array([[1.0], [np.nan]])
    with pytest.raises(ValueError, match=r"^weight must be numbers, got 1 NaN$"):
        grid.quantize(weight, np.array([1.0]), grid.GRIDS["int2"])


def test_a_ratio_beyond_float32_saturates_without_a_word():
    codes = grid.quantize(np.array([[3e38], [-3e38]]), np.array([1e-8]), grid.GRIDS["int2"])
    assert codes.tolist() == [[1], [-2]]


@pytest.mark.parametrize("scale", [0.0, -1.0, np.inf, np.nan])
def test_a_scale_that_cannot_divide_is_refused(scale):
    with pytest.raises(ValueError, match=r"^scale must be finite and above 0, got "):
        grid.quantize(np.ones((2, 1)), np.array([scale]), grid.GRIDS["int2"])


def test_an_unknown_grid_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"^grid must be one of int2, .*int8, got 'int3'$"):
        grid.find("int3")
