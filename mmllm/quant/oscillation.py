"""Weights that oscillate between two codes in training: found by their frequency, then frozen.

A weight near the edge between two levels is pushed over it in one step and back in the next, so the
codes at the last step are partly chance. Source: Overcoming Oscillations in Quantization-Aware
Training (Nagel et al., 2022), section 4.2; here the threshold is constant.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp

from mmllm.common.types import Array, Bool, Float, Int8, Params
from mmllm.quant import grid as grid_lib
from mmllm.quant import tree
from mmllm.quant.fake_quant import nearest, wide
from mmllm.quant.rules import Rule

MOMENTUM = 0.02  # of the running means: fifty steps
THRESHOLD = 0.04  # oscillations a step: a weight that goes back every 25th step is frozen


class Oscillation(NamedTuple):
    """What is known of one weight matrix, output channels last.

    Attributes:
      code: of the last step.
      direction: -1 or 1, where the last change went; 0 before the first.
      frequency: running mean of how often a change goes back on the one before it.
      mean: running mean of the codes.
      frozen: whether a weight stays where it is.
    """

    code: Int8[Array, "i o"]
    direction: Int8[Array, "i o"]
    frequency: Float[Array, "i o"]
    mean: Float[Array, "i o"]
    frozen: Bool[Array, "i o"]


State = dict[str, Oscillation]
"""By path of the weight."""


def start(params: Params, scales: Params, planned: Mapping[str, Rule]) -> State:
    """No weight has oscillated yet, and none is frozen."""
    found = {}
    for path, (weight, scale) in tree.with_scales(params, scales, planned).items():
        code = _codes(weight, scale, planned[path])
        # The mean starts at the code: from 0, a weight might be frozen at a code it never had.
        never = jnp.zeros(code.shape)
        found[path] = Oscillation(
            code.astype(jnp.int8), code.astype(jnp.int8) * 0, never, code, never > 0
        )
    return found


def freeze(
    state: State,
    params: Params,
    scales: Params,
    planned: Mapping[str, Rule],
    active: Bool[Array, ""],
) -> tuple[State, Params]:
    """After a step: counts oscillations, and holds the frozen weights on their level.

    Args:
      state: of the step before.
      params: the model's, moved by the step.
      scales: likewise.
      planned: the quantized weights, see `tree.plan`.
      active: whether weights are frozen from now on; those that are stay so.

    Returns:
      The new state, and the parameters with frozen weights at their level times the scale. A weight
      is frozen at the code nearest to the mean of its codes.
    """
    found, held = {}, {}
    for path, (weight, scale) in tree.with_scales(params, scales, planned).items():
        before, grid = state[path], grid_lib.GRIDS[planned[path].weights]
        code = _codes(weight, scale, planned[path])
        change = jnp.sign(code - before.code).astype(jnp.int8)
        # A weight that walks on through several levels does not oscillate: only a turn counts.
        back = (change != 0) & (change == -before.direction)
        frequency = (1 - MOMENTUM) * before.frequency + MOMENTUM * back
        mean = (1 - MOMENTUM) * before.mean + MOMENTUM * code
        newly = active & (frequency > THRESHOLD) & ~before.frozen
        # At the mean, not at the last code, which is the one that chance left.
        code = jnp.where(before.frozen, before.code, jnp.where(newly, jnp.round(mean), code))
        frozen = before.frozen | newly
        found[path] = Oscillation(
            code.astype(jnp.int8),
            jnp.where(change != 0, change, before.direction),
            frequency,
            mean,
            frozen,
        )
        # A level, not a number: a frozen weight follows its scale, which training still moves.
        level = (code + grid.offset) * wide(scale, weight.ndim)
        held[path] = jnp.where(frozen, level, weight)
    return found, tree.replaced(params, held)


def frozen_share(state: State) -> Float[Array, ""]:
    """Frozen weights over all."""
    frozen = sum(jnp.sum(each.frozen) for each in state.values())
    return jnp.float32(frozen) / sum(each.frozen.size for each in state.values())


def _codes(
    weight: Float[Array, "i o"], scale: Float[Array, "o"], rule: Rule
) -> Float[Array, "i o"]:
    return nearest(weight / wide(scale, weight.ndim), grid_lib.GRIDS[rule.weights])
