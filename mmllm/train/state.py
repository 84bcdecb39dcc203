"""What a training run carries from step to step: parameters, optimizer state, step number."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.models import mmllm as model_lib
from mmllm.train import losses, optimizer


class TrainState(flax.struct.PyTreeNode):
    """params = {"model": the shipped parameters less the frozen stem, "bank": training only}.

    The same tree also holds shapes and shardings in the place of arrays.
    """

    step: Any
    params: Any
    opt_state: Any


def init_state(config: Config, bank_size: int, start: Params | None = None) -> TrainState:
    """Fresh state of a run.

    Args:
      config: the experiment.
      bank_size: unique captions in the bank.
      start: parameters to begin with instead of fresh ones, a part of `TrainState.params`.

    Raises:
      ValueError: `start` holds a parameter that the model lacks, or one of another shape.
    """
    model_key, bank_key = jax.random.split(jax.random.key(config.seed))
    model_params = dict(model_lib.init_params(config.model, model_key))
    model_params.pop("stem", None)  # Frozen: cached as cells, joined again on export.
    bank = losses.CaptionBank(bank_size, config.model.embed_dim)
    teacher = jnp.zeros((bank_size, losses.TEACHER_WIDTH))
    bank_params = bank.init(bank_key, teacher, jnp.ones(bank_size), method="touch")["params"]
    params = _replaced({"model": model_params, "bank": dict(bank_params)}, start or {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.make_optimizer(config.train).init(params),
    )


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
