"""Rounding and its gradients against the stated formulas, element by element."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.quant import fake_quant, grid

# float32, another order of summation
TOLERANCE = 1e-5
# Of a step: float32 against float64.
ROWS_TOLERANCE = 1e-4
# Of the values of a row: those so near a tie that float32 rounds them to the other side.
TIES = 0.05
# Plain gradient descent on 512 weights ends this near the scale of infinitely many.
DESCENT_TOLERANCE = 0.1


def naive(weight, scale, each, gradient):
    """Output, weight gradient and scale gradient with Python loops."""
    out, by_weight, by_scale = np.zeros_like(weight), np.zeros_like(weight), np.zeros_like(scale)
    top = each.high + each.offset
    bottom, edge = (-2.0, 2.0) if each.name == "seq" else (each.low, each.high)
    for i, o in np.ndindex(weight.shape):
        ratio = weight[i, o] / scale[o]
        level = min(max(float(np.round(ratio - each.offset)), each.low), each.high) + each.offset
        out[i, o] = level * scale[o]
        if bottom < ratio < edge:
            by_weight[i, o] = gradient[i, o]
            by_scale[o] += gradient[i, o] * (level - ratio)
        else:
            by_scale[o] += gradient[i, o] * level
    return out, by_weight, by_scale / np.sqrt(len(weight) * top)


@pytest.mark.parametrize("name", grid.GRIDS)
def test_rounding_and_gradients_equal_a_naive_loop(name):
    each = grid.GRIDS[name]
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 5)).astype(np.float32)
    scale = (each.gaussian * rng.uniform(0.5, 1.5, 5)).astype(np.float32)
    gradient = rng.standard_normal((64, 5)).astype(np.float32)
    out, pull = jax.vjp(
        lambda w, s: fake_quant.fake_quant(w, s, each), jnp.asarray(weight), jnp.asarray(scale)
    )
    expected = naive(weight, scale, each, gradient)
    for found, target in zip((out, *pull(jnp.asarray(gradient))), expected, strict=True):
        np.testing.assert_allclose(found, target, atol=TOLERANCE, rtol=TOLERANCE)


def test_a_weight_on_the_outermost_level_gets_no_gradient_and_its_scale_that_level():
    each = grid.GRIDS["int2"]
    weight, scale = jnp.array([[-4.0], [-2.0], [0.0], [2.0]]), jnp.array([2.0])
    pull = jax.vjp(lambda w, s: fake_quant.fake_quant(w, s, each), weight, scale)[1]
    by_weight, by_scale = pull(jnp.ones((4, 1)))
    np.testing.assert_array_equal(by_weight, [[0.0], [1.0], [1.0], [0.0]])
    assert by_scale[0] == pytest.approx((-2.0 + 0.0 + 0.0 + 1.0) / 4**0.5)


def test_training_and_export_round_to_the_same_weights():
    rng = np.random.default_rng(1)
    for each in grid.GRIDS.values():
        weight = rng.standard_normal((32, 4)).astype(np.float32)
        scale = np.full(4, each.gaussian, np.float32)
        seen = fake_quant.fake_quant(jnp.asarray(weight), jnp.asarray(scale), each)
        codes = grid.quantize(weight, scale, each)
        np.testing.assert_array_equal(seen, grid.dequantize(codes, scale, each))


def test_a_learned_scale_falls_to_the_least_error():
    each = grid.GRIDS["int2"]
    weight = jax.random.normal(jax.random.key(0), (512, 1))

    def error(scale):
        return jnp.sum(jnp.square(fake_quant.fake_quant(weight, scale, each) - weight))

    scale = jnp.array([2.0])
    for _ in range(300):
        scale = scale - 1e-2 * jax.grad(error)(scale)
    assert scale[0] == pytest.approx(each.gaussian, abs=DESCENT_TOLERANCE)


def naive_rows(x):
    """One row of dynamic int8 in float64."""
    low, high = min(x.min(), 0.0), max(x.max(), 0.0)
    scale = (high - low) / 255 if high > low else 1.0
    zero = np.clip(np.round(-128 - low / scale), -128, 127)
    return (np.clip(np.round(x / scale) + zero, -128, 127) - zero) * scale


@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0])
def test_rows_are_rounded_each_on_its_own_range(shift):
    x = np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32) + np.float32(shift)
    x *= np.geomspace(1e-3, 1e3, 6, dtype=np.float32)[:, None]
    found = np.asarray(fake_quant.fake_quant_per_token(jnp.asarray(x)))
    for row, expected in zip(found, x.astype(np.float64), strict=True):
        step = (max(expected.max(), 0) - min(expected.min(), 0)) / 255
        # A tie may fall to the other side in float32.
        assert np.abs(row - naive_rows(expected)).max() <= step * (1 + ROWS_TOLERANCE)
        assert np.mean(np.abs(row - naive_rows(expected)) > step / 2) < TIES
        assert np.abs(row - expected).max() <= step


def test_zero_stays_zero_and_a_row_of_zeros_is_no_division():
    x = jnp.array([[0.0, 3.0, -1.0], [0.0, 0.0, 0.0], [0.0, 1e-38, -1e-38]])
    rows = fake_quant.fake_quant_per_token(x)
    np.testing.assert_array_equal(rows[:, 0], np.zeros(3))
    np.testing.assert_array_equal(rows[1:], np.zeros((2, 3)))


def test_the_gradient_of_rows_passes_unchanged():
    gradient = jax.grad(
        lambda x: jnp.sum(fake_quant.fake_quant_per_token(x) * jnp.arange(3.0)[None])
    )
    np.testing.assert_array_equal(gradient(jnp.array([[1.0, -2.0, 9.0]])), [[0.0, 1.0, 2.0]])


def test_one_scale_for_a_tensor_rounds_and_clips():
    x = jnp.array([[-300.0, -1.4, 0.5, 1.5, 127.0]])
    amax = jnp.float32(127.0)
    found = fake_quant.fake_quant_per_tensor(x, amax)
    np.testing.assert_array_equal(found, [[-127.0, -1.0, 0.0, 2.0, 127.0]])
    pull = jax.grad(lambda *both: jnp.sum(fake_quant.fake_quant_per_tensor(*both)), argnums=(0, 1))
    by_x, by_amax = pull(x, amax)
    np.testing.assert_array_equal(by_x, [[0.0, 1.0, 1.0, 1.0, 1.0]])
    assert by_amax == 0.0
