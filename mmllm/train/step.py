"""One pure training step: state x batch -> state, metrics."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmllm.common.config import Config
from mmllm.models import mmllm as model_lib
from mmllm.train import losses, optimizer
from mmllm.train.state import TrainState

Metrics = dict[str, jax.Array]


def make_step(config: Config) -> Callable[[TrainState, Any, jax.Array], tuple[TrainState, Metrics]]:
    """The step function of a config, to be jitted with its state donated.

    The step's randomness is folded from the seed and the step number, so no key lives in the state
    and a resumed run continues exactly.
    """
    model = model_lib.build(config.model)
    update = optimizer.make_optimizer(config.train).update

    def step(state: TrainState, batch: Any, bank_teacher: jax.Array) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(config.seed + 1), state.step)

        def loss_of(params: Any) -> tuple[jax.Array, Metrics]:
            return losses.total_loss(config, model, params, batch, bank_teacher, key)

        (total, parts), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, opt_state = update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {f"loss/{name}": value for name, value in parts.items()}
        metrics |= {"loss/total": total, "gradient_norm": optax.tree.norm(grads)}
        return TrainState(jnp.add(state.step, 1), params, opt_state), metrics

    return step
