"""What a training run carries from step to step: parameters, optimizer state, step number."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mmllm.common import tensors
from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.models import mmllm as model_lib
from mmllm.quant import oscillation, tree
from mmllm.quant.rules import Rule
from mmllm.train import optimizer
from mmllm.train.text import prototypes as prototypes_lib


class TrainState(flax.struct.PyTreeNode):
    """One moment of a run.

    Its params are {"model": the shipped parameters less the frozen backbone, "prototypes"}.
    A quantized student has "scales" (`quant.tree`) instead of the prototypes, which are its
    teacher's, and the state of `quant.oscillation` where it freezes weights.

    The same tree also holds shapes and shardings in the place of arrays.
    """

    step: Any
    params: Any
    opt_state: Any
    oscillation: Any = None


def init_state(config: Config, prototype_count: int, start: Params | None = None) -> TrainState:
    """Fresh state of a run.

    Args:
      config: the experiment.
      prototype_count: unique captions that pictures are compared with.
      start: parameters to begin with instead of fresh ones, a part of `TrainState.params`.

    Raises:
      ValueError: `start` holds a parameter that the model lacks, or one of another shape.
    """
    model_key, prototype_key = jax.random.split(jax.random.key(config.seed))
    model_params = dict(model_lib.init_params(config.model, model_key))
    model_params.pop("backbone", None)  # Frozen: cached as features, joined again on export.
    prototypes = prototypes_lib.init(config, prototype_count, prototype_key)
    params = _replaced({"model": model_params, "prototypes": prototypes}, start or {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.make(config.train).init(params),
    )


def init_student(config: Config, planned: Mapping[str, Rule], teacher: Params) -> TrainState:
    """State of a run that goes on from a float one on the grids of `config.quant`.

    Args:
      config: the experiment.
      planned: the quantized weights, see `quant.tree.plan`.
      teacher: {"model", "prototypes"} of the float run.

    Raises:
      ValueError: a quantized weight that the teacher lacks.
    """
    # A copy: the first step gives its state away, and the teacher stays.
    model = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), dict(teacher["model"]))
    lacking = sorted(set(planned) - {path for path, _ in tensors.flatten(model)})
    if lacking:
        raise ValueError(f"the teacher lacks the quantized weights {', '.join(lacking[:5])}")
    params = {"model": model, "scales": tree.init_scales(model, planned, config.quant.scale_start)}
    tx = optimizer.make(config.train, config.quant.scale_rate)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=tx.init(params),
        oscillation=_still(config, planned, params),
    )


def begin_rounding(config: Config, planned: Mapping[str, Rule], state: TrainState) -> TrainState:
    """A student's state after its steps in float: scales that fit the weights as they now are."""
    # Those of the first step fit weights that have moved since.
    scales = tree.init_scales(state.params["model"], planned, config.quant.scale_start)
    params = {**state.params, "scales": scales}
    return state.replace(params=params, oscillation=_still(config, planned, params))


def _still(config: Config, planned: Mapping[str, Rule], params: Params) -> oscillation.State | None:
    """Nothing frozen yet; None for a run that freezes nothing."""
    if config.quant.freeze_from == 1:
        return None
    return oscillation.start(params["model"], params["scales"], planned)


def _replaced(params: Params, start: Params, path: str = "") -> Params:
    """The tree with the leaves of `start` in their places."""
    result = dict(params)
    for name, value in start.items():
        have = params.get(name)
        if isinstance(have, Mapping) and isinstance(value, Mapping):
            result[name] = _replaced(have, value, f"{path}{name}/")
        elif have is None or isinstance(have, Mapping) or np.shape(value) != np.shape(have):
            raise ValueError(
                f"start parameter {path}{name} of shape {np.shape(value)} does not fit the model"
            )
        else:
            result[name] = jnp.asarray(value)
    return result
