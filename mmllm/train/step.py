"""One pure training step: state x batch -> state, metrics; of a float model, or of a student."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmllm.common.config import Config
from mmllm.models import mmllm as model_lib
from mmllm.quant import oscillation, tree
from mmllm.quant.rules import Rule
from mmllm.train import distill, forward, losses, optimizer
from mmllm.train.state import TrainState

Metrics = dict[str, jax.Array]
Step = Callable[..., tuple[TrainState, Metrics]]


def make_step(config: Config) -> Step:
    """The step of a float run, to be jitted with its state donated: state, batch, prototypes teacher.

    The step's randomness is folded from the seed and the step number, so no key lives in the state
    and a resumed run continues exactly.
    """
    model = model_lib.build(config.model)
    update = optimizer.make_optimizer(config.train).update

    def step(
        state: TrainState, batch: Any, prototype_sentences: jax.Array
    ) -> tuple[TrainState, Metrics]:
        key = _key(config, state)

        def loss_of(params: Any) -> tuple[jax.Array, Metrics]:
            return losses.total_loss(config, model, params, batch, prototype_sentences, key)

        return _moved(state, loss_of, update)

    return step


def make_taught_step(config: Config, planned: Mapping[str, Rule], rules: Sequence[Rule]) -> Step:
    """The step of a quantized student: state, batch, prototypes teacher, teacher {"model", "prototypes"}.

    Weights are rounded on the way in; the losses are those of the float run and what student and
    teacher disagree on. The prototypes stays as it is. From `quant.freeze_from` of the steps on, weights
    that oscillate are frozen. With nothing planned and no rules, a step in float, as those before the
    share that rounds.
    """
    student = model_lib.build(config.model, rules)
    whole = model_lib.build(config.model)
    quant = config.quant
    taught = bool(quant.teach_logits or quant.teach_lines or quant.teach_embeddings)
    update = optimizer.make_optimizer(config.train, quant.scale_rate).update

    def step(
        state: TrainState, batch: Any, prototype_sentences: jax.Array, teacher: Any
    ) -> tuple[TrainState, Metrics]:
        forward_key, prototype_key = jax.random.split(_key(config, state))
        prototypes = jax.lax.stop_gradient(teacher["prototypes"])

        def loss_of(params: Any) -> tuple[jax.Array, Metrics]:
            rounded = tree.fake_quantize(params["model"], params["scales"], planned)
            held = {"model": rounded, "prototypes": prototypes}
            got = forward.run(config, student, held, batch, prototype_sentences, forward_key)
            total, parts = losses.total(
                config, prototypes, got, batch, prototype_sentences, prototype_key
            )
            if taught:
                wanted = forward.run(
                    config, whole, teacher, batch, prototype_sentences, forward_key
                )
                apart, more = distill.losses_of(quant, got, wanted, batch)
                total, parts = total + apart, parts | more
            return total, parts

        moved, metrics = _moved(state, loss_of, update)
        if state.oscillation is None or not planned:
            return moved.replace(oscillation=state.oscillation), metrics
        params, active = moved.params, moved.step > quant.freeze_from * config.train.steps
        found, model = oscillation.freeze(
            state.oscillation, params["model"], params["scales"], planned, active
        )
        held = moved.replace(params={**params, "model": model}, oscillation=found)
        return held, metrics | {"frozen": oscillation.frozen_share(found)}

    return step


def _key(config: Config, state: TrainState) -> jax.Array:
    return jax.random.fold_in(jax.random.key(config.seed + 1), state.step)


def _moved(
    state: TrainState,
    loss_of: Callable[[Any], tuple[jax.Array, Metrics]],
    update: Callable[..., Any],
) -> tuple[TrainState, Metrics]:
    (total, parts), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    updates, opt_state = update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {f"loss/{name}": value for name, value in parts.items()}
    metrics |= {"loss/total": total, "gradient_norm": optax.tree.norm(grads)}
    return TrainState(jnp.add(state.step, 1), params, opt_state), metrics
