"""Trains the stem's last blocks on their grids, before the cells of the rounded stem are cached.

The same blocks in float teach them: the loss is how far the rounded cells lie from the float ones,
channel by channel in units of the channel's deviation. No label takes part, so what the float run
has learned to read in the cells stays readable.
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
from mmllm.train import checkpoint, frozen_stem, optimizer, stages, stem_cells, tune_stem
from mmllm.train.state import TrainState

LEARNING_RATE = 1e-3  # peak
Report = Callable[[str], None]
Step = Callable[[TrainState, Any, Any], tuple[TrainState, Float[Array, ""]]]


def check(config: Config) -> None:
    """Checks that there is something to teach, and only behind the trunk.

    Raises:
      ValueError: no weight, or one before the trunk's end, that lies below eight bits.
    """
    names = efficientnet_lite0.block_names(tune_stem.TRUNK)
    rules = frozen_stem.coarse(config)
    outside = [path for path in rules if path.split("/")[1] in ("stem", *names)]
    if outside or not rules:
        raise ValueError(
            f"quant.stem_steps trains the blocks behind tap {tune_stem.TRUNK} on grids below eight "
            f"bits, but quant.rules put {outside[0] if outside else 'no weight of the stem'} there"
        )


def make_step(config: Config, tx: optax.GradientTransformation) -> Step:
    """A step: state x trunk features x (float tail, 1 / deviation of each channel) -> state, loss.

    The state's parameters are {"model": {"stem": tail}, "scales"}.
    """
    tail, rules = tune_stem.tail(), frozen_stem.coarse(config)

    def step(state: TrainState, batch: Any, held: Any) -> tuple[TrainState, Float[Array, ""]]:
        features, (teacher, weight) = batch["cells"].astype(jnp.float32), held
        wanted = jnp.asarray(tail.apply({"params": teacher}, features))

        def loss_of(params: Params) -> Float[Array, ""]:
            rounded: Any = tree.fake_quantize(params["model"], params["scales"], rules)
            cells = jnp.asarray(tail.apply({"params": rounded["stem"]}, features))
            return jnp.mean(jnp.square((cells - wanted) * weight[None, None, None]))

        loss, grads = jax.value_and_grad(loss_of)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(jnp.add(state.step, 1), params, opt_state), loss

    return step


def teach(
    config: Config,
    stem: Params,
    trunks: Sequence[Sequence[np.ndarray]],
    workdir: Path,
    report: Report = print,
) -> Params:
    """Trains for `config.quant.stem_steps`, `config.tune.batch` pictures a step.

    Args:
      config: the experiment.
      stem: the whole stem in float, tuned.
      trunks: features at `tune_stem.TRUNK`, for each corpus and view.
      workdir: for checkpoints; an interrupted run goes on from the newest.
      report: takes the progress lines.

    Returns:
      {"tail", "scales"}: the blocks behind the trunk, and the scales of their coarse weights.

    Raises:
      FloatingPointError: a loss that is not finite.
      OSError: a checkpoint could not be written.
      ValueError: see `check`.
    """
    check(config)
    tail, rules = tune_stem.split_stem(stem)[1], frozen_stem.coarse(config)
    steps, seed = config.quant.stem_steps, stages.data_seed(config)
    tx = optax.chain(
        tune_stem.adam(LEARNING_RATE, steps),
        optax.masked(optax.scale(config.quant.scale_rate), optimizer.is_scale),
    )
    model = {"stem": jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), dict(tail))}
    params = {"model": model, "scales": tree.init_scales({"stem": stem}, rules)}
    state = TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))
    sources = [
        tune_stem.Named(v, np.zeros(len(v[0]), np.int32), np.ones(len(v[0]))) for v in trunks
    ]
    first = tune_stem.draws(sources, stem_cells.BATCH, seed + 4)
    function = stem_cells.part_function(stem, tap=config.model.tap, entry=tune_stem.TRUNK)
    weight = stem_cells.channel_statistics(function(next(first)["cells"]))["scale"]
    held = jax.device_put((dict(tail), weight))
    checkpoints = checkpoint.Checkpoints(workdir, keep=1)
    try:
        iterator = tune_stem.draws(sources, config.tune.batch, seed + 5)
        if checkpoints.latest_step:
            state = checkpoints.restore(state, iterator)
        step = jax.jit(make_step(config, tx), donate_argnums=0)
        state = tune_stem.run_steps(
            state, step, iterator, held, steps, report, "rounded stem", checkpoints
        )
    finally:
        checkpoints.close()
    trained = jax.device_get(state.params)
    return {"tail": trained["model"]["stem"], "scales": trained["scales"]}
