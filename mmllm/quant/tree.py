"""Whole parameter trees on their grids: which rule a weight has, its scale, what it rounds to.

Scales live in a tree of their own, in which the scale of a weight stands where the weight stands in
the parameters, so that the same model code serves float and rounded weights.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mmllm.common import mesh, tensors
from mmllm.common.types import Array, Float, Params
from mmllm.quant import grid as grid_lib
from mmllm.quant import rules as rules_lib
from mmllm.quant import scale as scale_lib
from mmllm.quant.coded import Coded, floats, is_table, is_weight
from mmllm.quant.fake_quant import fake_quant
from mmllm.quant.rules import Rule


def plan(params: Params, rules: Sequence[Rule]) -> dict[str, Rule]:
    """The quantized weights of a tree, by path, each with its rule.

    Raises:
      ValueError: a rule other than float that matches no matrix, one that matches something else
        than a matrix, or a matrix whose rows of codes would not fill whole bytes.
    """
    decided: dict[str, Rule] = {}
    for path, value in _flat(params).items():
        rule = rules_lib.find(path, rules)
        if rule is None or rule.is_float:
            continue
        if rule.weights == rules_lib.FLOAT and not is_weight(path):
            continue  # it rounds inputs, and a bias or a norm has none
        if value.ndim != 2:
            raise ValueError(
                f"rule {rule.pattern!r} matches {path} of shape {value.shape}; only matrices are "
                "quantized: put a float rule before it"
            )
        # A row of codes is an output channel: it is the input width that must fill whole bytes.
        each = 1 if rule.weights == rules_lib.FLOAT else 8 // grid_lib.GRIDS[rule.weights].bits
        if value.shape[1 if is_table(path) else 0] % each:
            raise ValueError(
                f"rule {rule.pattern!r} puts {path} of shape {value.shape} on {rule.weights}, "
                f"whose codes are packed by {each}: its input width must be a multiple of that"
            )
        decided[path] = rule
    # An idle rule is a misspelt one, or one that an earlier rule hides.
    idle = [rule for rule in rules if not rule.is_float and rule not in decided.values()]
    if idle:
        raise ValueError(f"rule {idle[0].pattern!r} decides over no parameter; remove or mend it")
    # Rules that round inputs alone are in use, too, but have no weights to plan.
    return {path: rule for path, rule in decided.items() if rule.weights != rules_lib.FLOAT}


def inputs(params: Params, rules: Sequence[Rule]) -> dict[str, str]:
    """How layers round their inputs, by their weight's path; those that do not are left out."""
    found = {
        path: rules_lib.inputs_of(path, rules)
        for path, value in _flat(params).items()
        if is_weight(path) and value.ndim == 2
    }
    return {path: name for path, name in found.items() if name != rules_lib.FLOAT}


def channels_last(path: str, weight: Float[Array, "x y"]) -> Float[Array, "i o"]:
    """A weight with its output channels last, whichever way it is stored; its own inverse."""
    return weight.T if is_table(path) else weight


def init_scales(params: Params, planned: Mapping[str, Rule], start: str = "mse") -> Params:
    """First scales of the weights whose scale is learned: a tree of (o,) arrays.

    Args:
      params: the float model.
      planned: of `plan`.
      start: a name of `scale.INITIAL`.

    Raises:
      ValueError: an unknown start.
    """
    if start not in scale_lib.INITIAL:
        raise ValueError(f"start must be one of {', '.join(scale_lib.INITIAL)}, got {start!r}")
    weights = _flat(params)
    return tensors.unflatten(
        {
            path: scale_lib.INITIAL[start](
                channels_last(path, jnp.asarray(weights[path])), grid_lib.GRIDS[rule.weights]
            )
            for path, rule in planned.items()
            if rule.scale == rules_lib.LEARNED
        }
    )


def _scale_of(
    path: str, rule: Rule, weight: Float[Array, "i o"], learned: Params
) -> Float[Array, "o"]:
    if rule.scale == rules_lib.LEARNED:
        scale = learned[path]
        # The gradient passes below the floor too: a scale that fell there must get up again.
        floor = jax.lax.stop_gradient(jnp.maximum(scale, scale_lib.SMALLEST))
        return floor + (scale - jax.lax.stop_gradient(scale))
    # Taken as a constant: a gradient through it would tie each weight to its whole channel.
    statistic = scale_lib.INITIAL[rule.scale](weight, grid_lib.GRIDS[rule.weights])
    return jax.lax.stop_gradient(statistic)


def fake_quantize(params: Params, scales: Params, planned: Mapping[str, Rule]) -> Params:
    """The tree with the planned weights rounded, for a training step; gradients pass through."""
    learned = _flat(scales)

    def rounded(path: str, weight: Float[Array, "x y"]) -> Float[Array, "x y"]:
        rule, inner = planned[path], channels_last(path, weight)
        scale = _scale_of(path, rule, inner, learned)
        return channels_last(path, fake_quant(inner, scale, grid_lib.GRIDS[rule.weights]))

    return _replaced(params, planned, rounded)


def with_scales(
    params: Params, scales: Params, planned: Mapping[str, Rule]
) -> dict[str, tuple[Float[Array, "i o"], Float[Array, "o"]]]:
    """The planned weights with their output channels last, and their scales, by path."""
    weights, learned, found = _flat(params), _flat(scales), {}
    for path, rule in planned.items():
        weight = channels_last(path, jnp.asarray(weights[path]))
        found[path] = weight, _scale_of(path, rule, weight, learned)
    return found


def replaced(params: Params, weights: Mapping[str, Float[Array, "i o"]]) -> Params:
    """The tree with these weights, their output channels last, in their places."""
    return _replaced(params, weights, lambda path, _: channels_last(path, weights[path]))


def quantize(params: Params, scales: Params, planned: Mapping[str, Rule]) -> dict[str, Coded]:
    """The planned weights as codes and scales, for export.

    Raises:
      ValueError: a weight that is not a number, or a scale that is not finite.
    """
    coded = {}
    for path, (weight, scale) in with_scales(params, scales, planned).items():
        rule, scale = planned[path], np.asarray(scale)
        # numpy rounds as `fake_quant.nearest` does: what ships are the codes that training saw.
        codes = grid_lib.quantize(np.asarray(weight), scale, grid_lib.GRIDS[rule.weights])
        coded[path] = Coded(np.ascontiguousarray(codes.T), scale, rule.weights)
    return coded


def dequantize(params: Params, coded: Mapping[str, Coded]) -> Params:
    """The tree with the coded weights as the floats they stand for."""
    return _replaced(params, coded, lambda path, _: jnp.asarray(floats(path, coded[path])))


def flip_rates(before: Mapping[str, Coded], after: Mapping[str, Coded]) -> dict[str, float]:
    """Share of each weight's codes that changed between two moments of a training."""
    return {path: float(np.mean(before[path].codes != after[path].codes)) for path in before}


def _flat(params: Params) -> Params:
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {mesh.path_name(path): value for path, value in leaves}


def _replaced(
    params: Params, paths: Mapping[str, object], change: Callable[[str, Array], Array]
) -> Params:
    def replaced(path: tuple[object, ...], value: Array) -> Array:
        name = mesh.path_name(path)
        return change(name, value) if name in paths else value

    return jax.tree_util.tree_map_with_path(replaced, params)
