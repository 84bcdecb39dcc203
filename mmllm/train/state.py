"""What a training run carries from step to step: parameters, optimizer state, step number."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from mmllm.common.config import Config
from mmllm.models import mmllm as model_lib
from mmllm.train import losses, optimizer


class TrainState(flax.struct.PyTreeNode):
    """params = {"model": the shipped parameters less the frozen stem, "bank": training only}.

    The same tree also holds shapes and shardings in the place of arrays.
    """

    step: Any
    params: Any
    opt_state: Any


def init_state(config: Config, bank_size: int, affine: dict[str, Any] | None = None) -> TrainState:
    """Fresh state of a run.

    Args:
      config: the experiment.
      bank_size: unique captions in the bank.
      affine: "scale" and "bias" (c,) that standardise the stem's channels; identity if None.
    """
    model_key, bank_key = jax.random.split(jax.random.key(config.seed))
    model_params = dict(model_lib.init_params(config.model, model_key))
    model_params.pop("stem", None)  # Frozen: cached as cells, joined again on export.
    if affine is not None:
        model_params["stem_affine"] = {name: jnp.asarray(value) for name, value in affine.items()}
    bank = losses.CaptionBank(bank_size, config.model.embed_dim)
    teacher = jnp.zeros((bank_size, losses.TEACHER_WIDTH))
    bank_params = bank.init(bank_key, teacher, jnp.ones(bank_size), method=_touch_bank)["params"]
    params = {"model": model_params, "bank": dict(bank_params)}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.make_optimizer(config.train).init(params),
    )


def _touch_bank(bank: losses.CaptionBank, teacher: jax.Array, keep: jax.Array) -> None:
    bank(teacher, keep)
    bank.scale()
