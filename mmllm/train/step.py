"""One pure training step: state x batch -> state, metrics; of a float model, or of a student."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.models import mmllm as model_lib
from mmllm.quant import oscillation, tree
from mmllm.quant import rules as rules_lib
from mmllm.quant.rules import Rule
from mmllm.train import forward, losses, optimizer
from mmllm.train.state import TrainState
from mmllm.train.student import distill, plan

Metrics = dict[str, jax.Array]
Step = Callable[..., tuple[TrainState, Metrics]]
LossOf = Callable[[Any], tuple[jax.Array, Metrics]]


def update(
    state: TrainState, loss_of: LossOf, tx: optax.GradientTransformation
) -> tuple[TrainState, Metrics]:
    """One move along the gradient: the only place in training that takes one.

    Args:
      state: before the step.
      loss_of: parameters -> the loss, and its parts by name.
      tx: of `optimizer.make`.

    Returns:
      The state after it; "loss/NAME" of each part, "loss/total" and "gradient_norm".
    """
    (total, parts), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {f"loss/{name}": value for name, value in parts.items()}
    metrics |= {"loss/total": total, "gradient_norm": optax.tree.norm(grads)}
    return TrainState(jnp.add(state.step, 1), params, opt_state), metrics


def make_step(config: Config) -> Step:
    """The step of a float run, to be jitted with its state donated: state, batch, sentences.

    The step's randomness is folded from the seed and the step number, so no key lives in the state
    and a resumed run continues exactly.
    """
    model = model_lib.build(config.model)
    tx = optimizer.make(config.train)

    def step(
        state: TrainState, batch: Any, prototype_sentences: jax.Array
    ) -> tuple[TrainState, Metrics]:
        key = _key(config, state)

        def loss_of(params: Any) -> tuple[jax.Array, Metrics]:
            return losses.total_loss(config, model, params, batch, prototype_sentences, key)

        return update(state, loss_of, tx)

    return step


def make_student_step(config: Config, *, rounds: bool = True) -> Step:
    """The step of a quantized student: state, batch, sentences, teacher {"model", "prototypes"}.

    Weights are rounded on the way in; the losses are those of the float run and what student and
    teacher disagree on. The prototypes stay as they are. From `quant.freeze_from` of the steps on,
    weights that oscillate are frozen. With `rounds` false it is a step in float, as those before
    the share that rounds.
    """
    rules = rules_lib.parse(config.quant.rules) if rounds else ()
    planned = plan.trained(config) if rounds else {}
    student = model_lib.build(config.model, rules)
    teacher_model = model_lib.build(config.model)
    quant = config.quant
    distils = bool(quant.distill_logits or quant.distill_lines or quant.distill_embeddings)
    tx = optimizer.make(config.train, quant.scale_rate)

    def step(
        state: TrainState, batch: Any, prototype_sentences: jax.Array, teacher: Any
    ) -> tuple[TrainState, Metrics]:
        forward_key, prototype_key = jax.random.split(_key(config, state))
        # They are of the float run: what pictures and texts point at must not move once more.
        prototypes = jax.lax.stop_gradient(teacher["prototypes"])

        def loss_of(params: Any) -> tuple[jax.Array, Metrics]:
            held = {"model": _rounded(params, planned), "prototypes": prototypes}
            outputs = forward.run(config, student, held, batch, prototype_sentences, forward_key)
            total, parts = losses.total(
                config, prototypes, outputs, batch, prototype_sentences, prototype_key
            )
            if distils:
                # The same key: both drop the same channels, so rounding is all that differs.
                targets = forward.run(
                    config, teacher_model, teacher, batch, prototype_sentences, forward_key
                )
                apart, more = distill.losses_of(quant, outputs, targets, batch)
                total, parts = total + apart, parts | more
            return total, parts

        moved, metrics = update(state, loss_of, tx)
        if state.oscillation is None or not planned:
            return moved.replace(oscillation=state.oscillation), metrics
        # After the step: a weight is frozen where the optimizer has just moved it.
        params, active = moved.params, moved.step > quant.freeze_from * config.train.steps
        found, model = oscillation.freeze(
            state.oscillation, params["model"], params["scales"], planned, active
        )
        held = moved.replace(params={**params, "model": model}, oscillation=found)
        return held, metrics | {"frozen": oscillation.frozen_share(found)}

    return step


def make_evaluation(
    config: Config, *, rounds: bool = False
) -> Callable[[Params, Any, jax.Array], Metrics]:
    """Losses without a step: {"model", "prototypes", maybe "scales"}, batch, sentences -> losses.

    Nothing is dropped and the key is fixed, so that two validations differ by the parameters alone.
    The captions may be others than those trained on: free residuals, which only training captions
    have, take no part.
    """
    still = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, feature_dropout=0.0),
        loss=dataclasses.replace(config.loss, spoken_noise=0.0),
    )
    planned = plan.trained(config) if rounds else {}
    model = model_lib.build(still.model, rules_lib.parse(config.quant.rules) if rounds else ())

    def evaluate(params: Params, batch: Any, prototype_sentences: jax.Array) -> Metrics:
        held = {"model": _rounded(params, planned), "prototypes": params["prototypes"]}
        # Without residuals the vectors are the map of the sentences alone.
        held["prototypes"] = {
            name: value for name, value in held["prototypes"].items() if name != "residual"
        }
        key = jax.random.key(config.seed)
        total, parts = losses.total_loss(still, model, held, batch, prototype_sentences, key)
        return {**parts, "total": total}

    return evaluate


def _rounded(params: Any, planned: Mapping[str, Rule]) -> Params:
    """The model's parameters on their grids; of a float run as they are."""
    if not planned:
        return params["model"]
    return tree.fake_quantize(params["model"], params["scales"], planned)


def _key(config: Config, state: TrainState) -> jax.Array:
    # The seed itself initialised the parameters; each use has a number of its own.
    return jax.random.fold_in(jax.random.key(config.seed + 1), state.step)
