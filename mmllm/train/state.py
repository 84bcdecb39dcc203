"""What a training run carries from step to step: parameters, optimizer state, step number."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmllm.common import tensors
from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.models import mmllm as model_lib
from mmllm.quant import oscillation, tree
from mmllm.quant.rules import Rule
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


def fresh(params: Params, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step of whatever trains `params`; the steps donate them."""
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=tx.init(params))


def init_params(config: Config, captions: int, start: Params | None = None) -> Params:
    """{"model", "prototypes"}: what a float run begins with.

    Args:
      config: the experiment.
      captions: unique ones that pictures are compared with.
      start: parameters to begin with instead of fresh ones, a part of the result.

    Raises:
      ValueError: `start` holds a parameter that the model lacks, or one of another shape.
    """
    model_key, prototype_key = jax.random.split(jax.random.key(config.seed))
    prototypes = prototypes_lib.init(config, captions, prototype_key)
    model = dict(model_lib.init_params(config.model, model_key))
    model.pop("backbone", None)  # Frozen: cached as features, joined again on export.
    return _replaced({"model": model, "prototypes": prototypes}, start or {})


def init_student(
    config: Config,
    weights: Mapping[str, Rule],
    teacher: Params,
    tx: optax.GradientTransformation,
) -> TrainState:
    """State of a run that goes on from a float one on the grids of `config.quant`.

    Args:
      config: the experiment.
      weights: the quantized ones, see `student.plan.trained`.
      teacher: {"model", "prototypes"} of the float run.
      tx: of `optimizer.make`.

    Raises:
      ValueError: a quantized weight that the teacher lacks.
    """
    # A copy: the first step gives its state away, and the teacher stays.
    model = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), dict(teacher["model"]))
    missing = sorted(set(weights) - {path for path, _ in tensors.flatten(model)})
    if missing:
        raise ValueError(f"the teacher lacks the quantized weights {', '.join(missing[:5])}")
    params, oscillating = _on_grids(config, weights, model)
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), oscillating)


def begin_rounding(config: Config, weights: Mapping[str, Rule], state: TrainState) -> TrainState:
    """A student's state after its steps in float: scales that fit the weights as they now are."""
    # Those of the first step fit weights that have moved since.
    params, oscillating = _on_grids(config, weights, state.params["model"])
    return state.replace(params=params, oscillation=oscillating)


def _on_grids(
    config: Config, weights: Mapping[str, Rule], model: Params
) -> tuple[Params, oscillation.State | None]:
    """{"model", "scales"} of a student, and nothing frozen yet; None where nothing ever is."""
    scales = tree.init_scales(model, weights, config.quant.scale_start)
    freezes = config.quant.freeze_from < 1
    oscillating = oscillation.start(model, scales, weights) if freezes else None
    return {"model": model, "scales": scales}, oscillating


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
