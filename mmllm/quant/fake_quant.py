"""Quantization as training sees it: the forward pass rounds, the backward pass looks through.

Weights come out on their grid as floats, activations as the int8 that the runtimes compute with.
"""

import functools

import jax
import jax.numpy as jnp

from mmllm.common.types import Array, Float
from mmllm.quant.grid import Grid

ACTIVATION_LOW, ACTIVATION_HIGH = -128, 127
SMALLEST_RANGE = 1e-30  # of a row; below it a scale would be no float32 one can divide by


def wide(scale: Float[Array, "o"], rank: int) -> Float[Array, "... o"]:
    """A scale an output channel, shaped to multiply weights of that rank."""
    return jnp.reshape(scale, (1,) * (rank - 1) + (-1,))


def nearest(ratio: Float[Array, "*w"], grid: Grid) -> Float[Array, "*w"]:
    """Weight over scale -> nearest code, a float; ties go to the even one, the rest saturates."""
    # In the order of `grid.quantize`, so that what ships has the codes that training saw.
    return jnp.clip(jnp.round(ratio - grid.offset), grid.low, grid.high)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def fake_quant(
    weight: Float[Array, "*w o"], scale: Float[Array, "o"], grid: Grid
) -> Float[Array, "*w o"]:
    """Weights rounded to their grid.

    The gradient of a weight passes where weight / scale lies inside `grid.window` and is 0 outside.
    The gradient of a scale is level - weight / scale inside and the outermost level outside, summed
    over its channel and divided by sqrt(N * Qp), N weights a channel.
    Source: Learned Step Size Quantization (Esser et al., 2020), equations 2, 3 and section 2.2.

    Args:
      weight: output channels on the last axis.
      scale: above 0, which the caller sees to: a jitted function cannot refuse.
      grid: where the levels come from.
    """
    return _round(weight, scale, grid)[0]


def _round(
    weight: Float[Array, "*w o"], scale: Float[Array, "o"], grid: Grid
) -> tuple[Float[Array, "*w o"], Float[Array, "*w o"], Float[Array, "*w o"]]:
    """Rounded weights, their levels at scale 1, and weight / scale."""
    broad = wide(scale, weight.ndim)
    ratio = weight / broad
    level = nearest(ratio, grid) + grid.offset
    return level * broad, level, ratio


def _forward(
    weight: Float[Array, "*w o"], scale: Float[Array, "o"], grid: Grid
) -> tuple[Float[Array, "*w o"], tuple[Float[Array, "*w o"], Float[Array, "o"]]]:
    return _round(weight, scale, grid)[0], (weight, scale)


def _backward(
    grid: Grid,
    saved: tuple[Float[Array, "*w o"], Float[Array, "o"]],
    gradient: Float[Array, "*w o"],
) -> tuple[Float[Array, "*w o"], Float[Array, "o"]]:
    weight, scale = saved
    # Rounded again, not saved: two arrays a weight, as large as it, would wait for this pass.
    _, level, ratio = _round(weight, scale, grid)
    bottom, top = grid.window
    inside = (ratio > bottom) & (ratio < top)
    slope = jnp.where(inside, level - ratio, level)
    # A scale sums over its whole channel: without this it would outrun the weights.
    shared = weight.size // weight.shape[-1]
    share = (shared * grid.top) ** -0.5
    by_channel = jnp.sum(gradient * slope, axis=tuple(range(weight.ndim - 1)))
    return jnp.where(inside, gradient, 0.0), share * by_channel


fake_quant.defvjp(_forward, _backward)


@jax.custom_vjp
def fake_quant_per_token(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Activations as dynamic int8: each row gets its own scale and zero point.

    A row that is not finite, or whose range is beyond float32, comes out as NaN.

    The gradient passes unchanged: a row's range always covers it. Source: the range and its zero
    point follow XNNPACK's `qd8` inputs, the path of LiteRT's hybrid FULLY_CONNECTED on CPUs.
    """
    # The range always holds 0, so that 0 has a code of its own and comes out exact.
    low = jnp.minimum(jnp.min(x, axis=-1, keepdims=True), 0.0)
    high = jnp.maximum(jnp.max(x, axis=-1, keepdims=True), 0.0)
    steps = ACTIVATION_HIGH - ACTIVATION_LOW
    # A row of zeros, padding for one, keeps scale 1 and comes out as zeros.
    scale = jnp.where(high - low > SMALLEST_RANGE, (high - low) / steps, 1.0)
    zero = jnp.clip(jnp.round(ACTIVATION_LOW - low / scale), ACTIVATION_LOW, ACTIVATION_HIGH)
    codes = jnp.clip(jnp.round(x / scale) + zero, ACTIVATION_LOW, ACTIVATION_HIGH)
    return (codes - zero) * scale


fake_quant_per_token.defvjp(
    lambda x: (fake_quant_per_token(x), None), lambda _, gradient: (gradient,)
)


@jax.custom_vjp
def fake_quant_per_tensor(x: Float[Array, "*b d"], amax: Float[Array, ""]) -> Float[Array, "*b d"]:
    """Activations as static int8: one symmetric scale, `amax` / 127, found by calibration.

    The gradient passes where |x| <= amax, and none reaches `amax`.
    """
    # A layer that calibration saw only zeros of has an amax of almost nothing.
    scale = jnp.maximum(amax, 1e-8) / ACTIVATION_HIGH
    return jnp.clip(jnp.round(x / scale), -ACTIVATION_HIGH, ACTIVATION_HIGH) * scale


def _tensor_forward(
    x: Float[Array, "*b d"], amax: Float[Array, ""]
) -> tuple[Float[Array, "*b d"], tuple[Float[Array, "*b d"], Float[Array, ""]]]:
    return fake_quant_per_tensor(x, amax), (x, amax)


def _tensor_backward(
    saved: tuple[Float[Array, "*b d"], Float[Array, ""]], gradient: Float[Array, "*b d"]
) -> tuple[Float[Array, "*b d"], Float[Array, ""]]:
    x, amax = saved
    # Beyond `amax` the output no longer follows x; `amax` itself is calibrated, not trained.
    return jnp.where(jnp.abs(x) <= amax, gradient, 0.0), jnp.zeros_like(amax)


fake_quant_per_tensor.defvjp(_tensor_forward, _tensor_backward)
