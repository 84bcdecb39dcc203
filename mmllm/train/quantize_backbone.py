"""Trains the backbone's last blocks on their grids, before the features of the rounded backbone are cached.

The same blocks in float teach them: the loss is how far the rounded features lie from the float ones,
channel by channel in units of the channel's deviation. No label takes part, so what the float run
has learned to read in the features stays readable.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmllm.common.config import Config
from mmllm.common.types import Array, Float, Params
from mmllm.models import efficientnet_lite0
from mmllm.quant import tree
from mmllm.train import backbone as backbone_lib
from mmllm.train import checkpoint, optimizer, stages, tune_backbone
from mmllm.train import features as features_lib
from mmllm.train.state import TrainState

LEARNING_RATE = 1e-3  # peak
Report = Callable[[str], None]
Step = Callable[[TrainState, Any, Any], tuple[TrainState, Float[Array, ""]]]


def check(config: Config) -> None:
    """Checks that there is something to teach, and only behind the frozen.

    Raises:
      ValueError: no weight, or one before the frozen's end, that lies below eight bits.
    """
    names = efficientnet_lite0.block_names(tune_backbone.FROZEN_LEVEL)
    rules = backbone_lib.coarse(config)
    outside = [path for path in rules if path.split("/")[1] in ("stem", *names)]
    if outside or not rules:
        raise ValueError(
            f"quant.backbone_steps trains the blocks behind level {tune_backbone.FROZEN_LEVEL} on grids below eight "
            f"bits, but quant.rules put {outside[0] if outside else 'no weight of the backbone'} there"
        )


def make_step(config: Config, tx: optax.GradientTransformation) -> Step:
    """A step: state x frozen features x (float trainable, 1 / deviation of each channel) -> state, loss.

    The state's parameters are {"model": {"backbone": trainable}, "scales"}.
    """
    trainable, rules = tune_backbone.trainable(), backbone_lib.coarse(config)

    def step(state: TrainState, batch: Any, held: Any) -> tuple[TrainState, Float[Array, ""]]:
        features, (teacher, weight) = batch["features"].astype(jnp.float32), held
        wanted = jnp.asarray(trainable.apply({"params": teacher}, features))

        def loss_of(params: Params) -> Float[Array, ""]:
            rounded: Any = tree.fake_quantize(params["model"], params["scales"], rules)
            got = jnp.asarray(trainable.apply({"params": rounded["backbone"]}, features))
            return jnp.mean(jnp.square((got - wanted) * weight[None, None, None]))

        loss, grads = jax.value_and_grad(loss_of)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(jnp.add(state.step, 1), params, opt_state), loss

    return step


def teach(
    config: Config,
    backbone: Params,
    frozen_features: Sequence[Sequence[np.ndarray]],
    workdir: Path,
    report: Report = print,
) -> Params:
    """Trains for `config.quant.backbone_steps`, `config.tune.batch` pictures a step.

    Args:
      config: the experiment.
      backbone: the whole backbone in float, tuned.
      frozen_features: features at `tune_backbone.FROZEN_LEVEL`, for each corpus and view.
      workdir: for checkpoints; an interrupted run goes on from the newest.
      report: takes the progress lines.

    Returns:
      {"trainable", "scales"}: the blocks behind the frozen, and the scales of their coarse weights.

    Raises:
      FloatingPointError: a loss that is not finite.
      OSError: a checkpoint could not be written.
      ValueError: see `check`.
    """
    check(config)
    trainable, rules = tune_backbone.split_backbone(backbone)[1], backbone_lib.coarse(config)
    steps, seed = config.quant.backbone_steps, stages.data_seed(config)
    tx = optax.chain(
        tune_backbone.adam(LEARNING_RATE, steps),
        optax.masked(optax.scale(config.quant.scale_rate), optimizer.is_scale),
    )
    model = {"backbone": jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), dict(trainable))}
    params = {"model": model, "scales": tree.init_scales({"backbone": backbone}, rules)}
    state = TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))
    sources = [
        tune_backbone.Named(v, np.zeros(len(v[0]), np.int32), np.ones(len(v[0])))
        for v in frozen_features
    ]
    first = tune_backbone.draws(sources, features_lib.BATCH, seed + 4)
    function = features_lib.part_function(
        backbone, level=config.model.level, entry=tune_backbone.FROZEN_LEVEL
    )
    weight = features_lib.channel_statistics(function(next(first)["features"]))["scale"]
    held = jax.device_put((dict(trainable), weight))
    checkpoints = checkpoint.Checkpoints(workdir, keep=1)
    try:
        iterator = tune_backbone.draws(sources, config.tune.batch, seed + 5)
        if checkpoints.latest_step:
            state = checkpoints.restore(state, iterator)
        step = jax.jit(make_step(config, tx), donate_argnums=0)
        state = tune_backbone.run_steps(
            state, step, iterator, held, steps, report, "rounded stem", checkpoints
        )
    finally:
        checkpoints.close()
    trained = jax.device_get(state.params)
    return {"trainable": trained["model"]["backbone"], "scales": trained["scales"]}
