"""Which weights of a model are quantized, and by which rule; a model is traced once."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from mmllm.common.config import Config, ModelConfig
from mmllm.models import mmllm as model_lib
from mmllm.quant import rules as rules_lib
from mmllm.quant import scale, tree
from mmllm.quant.rules import Rule

BACKBONE = "backbone/"


class Plan(NamedTuple):
    """What a run rounds.

    Attributes:
      weights: the quantized weights that it trains, by path.
      rules: by which its layers round their inputs.
    """

    weights: Mapping[str, Rule]
    rules: tuple[Rule, ...]


FLOAT = Plan({}, ())  # rounds nothing


def whole(config: Config) -> dict[str, Rule]:
    """The quantized weights of the whole model, the backbone included, by path.

    Raises:
      ValueError: a rule that cannot work, see `quant.rules` and `quant.tree.plan`.
    """
    if config.quant.scale_start not in scale.INITIAL:
        raise ValueError(
            f"quant.scale_start must be one of {', '.join(scale.INITIAL)}, "
            f"got {config.quant.scale_start!r}"
        )
    # A copy: what is remembered must not change under the next caller.
    return dict(_planned(config.model, config.quant.rules)) if config.quant.rules else {}


def trained(config: Config) -> Plan:
    """The part that a run trains: all but the backbone's weights, which no step touches."""
    found = whole(config).items()
    weights = {path: rule for path, rule in found if not path.startswith(BACKBONE)}
    return Plan(weights, rules_lib.parse(config.quant.rules))


def backbone(config: Config) -> dict[str, Rule]:
    """The part of the frozen backbone."""
    return {path: rule for path, rule in whole(config).items() if path.startswith(BACKBONE)}


@functools.cache
def _planned(model: ModelConfig, rules: tuple[str, ...]) -> dict[str, Rule]:
    shapes, parsed = _shapes(model), rules_lib.parse(rules)
    for path, inputs in tree.inputs(shapes, parsed).items():
        # Nobody could measure their range: the backbone runs before anything is calibrated.
        if path.startswith(BACKBONE) and inputs == rules_lib.INT8_STATIC:
            raise ValueError(
                f"quant.rules must not round the inputs of {path} as int8_static: the backbone's "
                "features are cached before anything is calibrated; use int8"
            )
    return tree.plan(shapes, parsed)


@functools.cache
def _shapes(model: ModelConfig) -> Any:
    # Tracing the whole model takes a second; a plan is asked for ten times in a run.
    return jax.eval_shape(lambda key: model_lib.init_params(model, key), jax.random.key(0))
