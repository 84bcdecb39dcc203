"""One scale per output channel: found by squared error, or read off a statistic of the weights.

Learned scales start from these; statistic scales are computed anew in every step.
"""

import math

import jax.numpy as jnp

from mmllm.common.types import Array, Float
from mmllm.quant import fake_quant
from mmllm.quant.grid import Grid

# A channel of zeros has a scale too: something divides by it.
SMALLEST = 1e-8
CANDIDATES = 128
SPAN = 4.0  # candidates lie between 1 / SPAN and SPAN times the Gaussian scale
REFINEMENTS = 4
MEAN_OVER_DEVIATION = math.sqrt(2 / math.pi)  # of the absolute values of a Gaussian


def rms_scale(weight: Float[Array, "*w o"], grid: Grid) -> Float[Array, "o"]:
    """The best scale if the channel were Gaussian, from its root mean square."""
    square = jnp.mean(jnp.square(weight), axis=tuple(range(weight.ndim - 1)))
    return jnp.maximum(grid.gaussian * jnp.sqrt(square), SMALLEST)


def absmean_scale(weight: Float[Array, "*w o"], grid: Grid) -> Float[Array, "o"]:
    """The same from the mean of the absolute values, which outliers move less.

    BitNet b1.58 (Ma et al., 2024) takes the mean itself for `ternary`; this is 1.54 times that,
    which has less squared error.
    """
    mean = jnp.mean(jnp.abs(weight), axis=tuple(range(weight.ndim - 1)))
    return jnp.maximum(grid.gaussian / MEAN_OVER_DEVIATION * mean, SMALLEST)


def mse_scale(weight: Float[Array, "*w o"], grid: Grid) -> Float[Array, "o"]:
    """The scale with the least squared error between a channel and its levels.

    The best of some candidates around the Gaussian scale, refined in alternation: given the codes,
    the best scale is a least-squares fit, and given the scale, the best codes are the nearest ones.
    """
    axes = tuple(range(weight.ndim - 1))

    def levels(scale: Float[Array, "o"]) -> Float[Array, "*w o"]:
        wide = fake_quant.wide(scale, weight.ndim)
        return fake_quant.nearest(weight / wide, grid) + grid.offset

    def error(scale: Float[Array, "o"]) -> Float[Array, "o"]:
        wide = fake_quant.wide(scale, weight.ndim)
        return jnp.sum(jnp.square(levels(scale) * wide - weight), axis=axes)

    # The error has many valleys: a grid of candidates finds the right one, the fits its bottom.
    start = best = rms_scale(weight, grid)
    least = error(best)
    for step in range(CANDIDATES + REFINEMENTS):
        if step < CANDIDATES:
            # Evenly spaced in the logarithm: what counts is the ratio of a scale to the weights.
            scale = SPAN ** (2 * step / (CANDIDATES - 1) - 1) * start
        else:
            scale = _fit(weight, levels(best))
        found = error(scale)
        best, least = jnp.where(found < least, scale, best), jnp.minimum(found, least)
    return best


def calibrated_amax(values: Float[Array, "n"]) -> Float[Array, ""]:
    """The amax of a symmetric int8 range with the least squared error over a sample of activations.

    Cutting off the rarest values makes the others finer: CANDIDATES shares of the largest absolute
    value are tried. At least SMALLEST / CANDIDATES, for a layer that was only given zeros.
    """
    top = jnp.maximum(jnp.max(jnp.abs(values)), SMALLEST)
    ends = top * jnp.linspace(1.0 / CANDIDATES, 1.0, CANDIDATES)
    rounded = [fake_quant.fake_quant_per_tensor(values, amax) for amax in ends]
    errors = [jnp.sum(jnp.square(each - values)) for each in rounded]
    return ends[jnp.argmin(jnp.stack(errors))]


def _fit(weight: Float[Array, "*w o"], level: Float[Array, "*w o"]) -> Float[Array, "o"]:
    axes = tuple(range(weight.ndim - 1))
    square = jnp.sum(jnp.square(level), axis=axes)
    # At least 1: where every code is 0, no scale fits better than another.
    return jnp.maximum(jnp.sum(weight * level, axis=axes) / jnp.maximum(square, 1.0), SMALLEST)


INITIAL = {"mse": mse_scale, "rms": rms_scale, "absmean": absmean_scale}
"""Where a scale comes from, by the name a config gives."""
