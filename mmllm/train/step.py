"""One pure training step: state x batch -> state, metrics; of a float run or of a student."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.models import mmllm as model_lib
from mmllm.quant import oscillation, tree
from mmllm.train import forward, losses
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
    moved = state.replace(step=jnp.add(state.step, 1), params=params, opt_state=opt_state)
    return moved, metrics


def make_step(
    config: Config, tx: optax.GradientTransformation, planned: plan.Plan = plan.FLOAT
) -> Step:
    """The step of a run, to be jitted with its state donated: state, batch, sentences, teacher.

    Of a float run the teacher is None. A student's, {"model", "prototypes"}, gives it its
    prototypes, and the losses of what the two disagree on. Weights are rounded on the way in, and
    from `quant.freeze_from` of the steps on those that oscillate are frozen.

    The step's randomness is folded from the seed and the step number, so no key lives in the state
    and a resumed run continues exactly.

    Args:
      config: the experiment.
      tx: of `optimizer.make`.
      planned: what is rounded; nothing in a float run, nor in a student's steps before the share
        that rounds.
    """
    model, float_model = model_lib.build(config.model, planned.rules), model_lib.build(config.model)
    quant = config.quant
    distils = bool(quant.distill_logits or quant.distill_lines or quant.distill_embeddings)

    def step(
        state: TrainState, batch: Any, sentences: jax.Array, teacher: Any = None
    ) -> tuple[TrainState, Metrics]:
        # The seed itself initialised the parameters; each use has a number of its own.
        key = jax.random.fold_in(jax.random.key(config.seed + 1), state.step)
        forward_key, prototype_key = jax.random.split(key)

        def loss_of(params: Any) -> tuple[jax.Array, Metrics]:
            params = rounded(params, planned, teacher)
            outputs = forward.run(config, model, params, batch, sentences, forward_key)
            total, parts = losses.total(
                config, params["prototypes"], outputs, batch, sentences, prototype_key
            )
            if teacher is not None and distils:
                # The same key: both drop the same channels, so rounding is all that differs.
                targets = forward.run(config, float_model, teacher, batch, sentences, forward_key)
                apart, more = distill.losses_of(quant, outputs, targets, batch)
                total, parts = total + apart, parts | more
            return total, parts

        moved, metrics = update(state, loss_of, tx)
        if moved.oscillation is None or not planned.weights:
            return moved, metrics
        # After the step: a weight is frozen where the optimizer has just moved it.
        params, active = moved.params, moved.step > quant.freeze_from * config.train.steps
        oscillating, weights = oscillation.freeze(
            moved.oscillation, params["model"], params["scales"], planned.weights, active
        )
        moved = moved.replace(params={**params, "model": weights}, oscillation=oscillating)
        return moved, metrics | {"frozen": oscillation.frozen_share(oscillating)}

    return step


def make_evaluation(
    config: Config, planned: plan.Plan = plan.FLOAT
) -> Callable[[Params, Any, jax.Array, Any], Metrics]:
    """Losses without a step: parameters of a state, batch, sentences, teacher -> losses.

    Nothing is dropped and the key is fixed, so that two validations differ by the parameters alone.
    The captions may be others than those trained on: free residuals, which only training captions
    have, take no part.
    """
    still = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, feature_dropout=0.0),
        loss=dataclasses.replace(config.loss, spoken_noise=0.0),
    )
    model = model_lib.build(still.model, planned.rules)

    def evaluate(params: Params, batch: Any, sentences: jax.Array, teacher: Any = None) -> Metrics:
        params = rounded(params, planned, teacher)
        # Without residuals the vectors are the map of the sentences alone.
        mapped = {k: v for k, v in params["prototypes"].items() if k != "residual"}
        params = {**params, "prototypes": mapped}
        forward_key, prototype_key = jax.random.split(jax.random.key(config.seed))
        outputs = forward.run(still, model, params, batch, sentences, forward_key)
        total, parts = losses.total(
            still, params["prototypes"], outputs, batch, sentences, prototype_key
        )
        return {**parts, "total": total}

    return evaluate


def rounded(params: Any, planned: plan.Plan, teacher: Any) -> Params:
    """{"model", "prototypes"} as a step looks at them: weights on their grids; float as they are.

    The prototypes of a student are its teacher's, and stay.
    """
    if teacher is None:
        return params
    weights = tree.fake_quantize(params["model"], params["scales"], planned.weights)
    # What pictures and texts point at must not move once more.
    return {"model": weights, "prototypes": jax.lax.stop_gradient(teacher["prototypes"])}
