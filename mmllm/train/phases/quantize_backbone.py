"""Phase 3, block reconstruction: the backbone's last blocks trained on their grids.

Reads the tuned blocks and the features at `blocks.FROZEN_LEVEL`; leaves the blocks and their
learned scales beside the tuned ones. It stands before `cache_features`, because what a student
trains on are the features of its rounded backbone. Skipped with `quant.reconstruction.steps` 0:
then such weights are only rounded (PTQ).

The same blocks in float are the teacher: the loss is how far the rounded features lie from the
float ones, channel by channel in units of the channel's deviation. No label takes part, so what the
float run has learned to read in the features stays readable.

Source: BRECQ (Li et al., 2021), with the last blocks together as the one unit.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmllm.common import tensors
from mmllm.common.config import Config
from mmllm.common.types import Array, Params
from mmllm.quant import tree
from mmllm.train import draws, fit, optimizer
from mmllm.train import step as step_lib
from mmllm.train.backbone import blocks as backbone_lib
from mmllm.train.backbone import feature_cache
from mmllm.train.backbone import features as features_lib
from mmllm.train.backbone.blocks import FROZEN_LEVEL
from mmllm.train.phases import tune_backbone
from mmllm.train.run import Run
from mmllm.train.state import TrainState, fresh
from mmllm.train.student import start

Report = fit.Report


def run(run: Run) -> None:
    """Leaves `blocks.blocks_file` in the folder of the backbone."""
    config, tables = run.config, run.tables
    assert tables is not None, "prepare runs first"
    if not config.quant.reconstruction.steps:
        return
    folder = feature_cache.backbone_folder(config, tables)
    path = folder / backbone_lib.blocks_file(config)
    if path.exists():  # of this student or another with the same grids
        return
    frozen = list(tune_backbone.frozen_features(config, run.report).values())
    backbone = backbone_lib.whole(config, folder)
    found = reconstruct(config, backbone, frozen, folder / path.stem, run.report)
    # The weights as they ship; the scales stay float32, as a bundle holds them.
    blocks = backbone_lib.half(found["trainable"])
    tensors.write(path, {"trainable": blocks, "scales": found["scales"]})


def check(config: Config) -> None:
    """Checks that there is something to train, and only behind the frozen blocks.

    Raises:
      ValueError: no weight, or one before the frozen level's end, that lies below eight bits.
    """
    if not config.quant.reconstruction.steps:
        return
    rules, frozen = backbone_lib.coarse(config), backbone_lib.frozen_names()
    outside = [path for path in rules if path.split("/")[1] in frozen]
    if outside or not rules:
        raise ValueError(
            f"quant.reconstruction.steps trains the blocks behind level {FROZEN_LEVEL} on grids "
            "below eight bits, but quant.rules put "
            f"{outside[0] if outside else 'no weight of the backbone'} there"
        )


def make_step(config: Config, tx: optax.GradientTransformation) -> step_lib.Step:
    """A step: state x frozen features x (float blocks, 1 / deviation of each channel) -> state.

    The state's parameters are {"model": {"backbone": blocks}, "scales"}.
    """
    blocks, rules = backbone_lib.trainable_blocks(), backbone_lib.coarse(config)

    def step(state: TrainState, batch: Any, target_of: Any) -> tuple[TrainState, step_lib.Metrics]:
        features, (teacher, weight) = batch["features"].astype(jnp.float32), target_of
        target = jnp.asarray(blocks.apply({"params": teacher}, features))

        def loss_of(params: Params) -> tuple[Array, step_lib.Metrics]:
            rounded: Any = tree.fake_quantize(params["model"], params["scales"], rules)
            prediction = jnp.asarray(blocks.apply({"params": rounded["backbone"]}, features))
            # Without weights a few loud channels would be all that counts.
            error = (prediction - target) * weight[None, None, None]
            return jnp.mean(jnp.square(error)), {}

        return step_lib.update(state, loss_of, tx)

    return step


def reconstruct(
    config: Config,
    backbone: Params,
    frozen: Sequence[Sequence[np.ndarray]],
    workdir: Path,
    report: Report = print,
) -> Params:
    """Trains the blocks for `quant.reconstruction.steps`.

    Args:
      config: the experiment.
      backbone: the whole backbone in float, tuned.
      frozen: features at `FROZEN_LEVEL`, for each corpus and view.
      workdir: for checkpoints; an interrupted run goes on from the newest.
      report: takes the progress lines.

    Returns:
      {"trainable", "scales"}: the blocks, and the scales of their coarse weights.

    Raises:
      FloatingPointError: a loss that is not finite.
      OSError: a checkpoint could not be written.
      ValueError: see `check`.
    """
    check(config)
    section, seed = config.quant.reconstruction, start.data_seed(config)
    blocks, rules = backbone_lib.split(backbone)[1], backbone_lib.coarse(config)
    # Copied: the first step gives its state away, and the same blocks are the teacher.
    model = {"backbone": jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), dict(blocks))}
    params = {"model": model, "scales": tree.init_scales({"backbone": backbone}, rules)}
    tx = optimizer.make(section, config.quant.scale_rate)
    # No labels, and each picture equally often: all corpora look alike to the blocks.
    sources = [
        draws.Named(views, np.zeros(len(views[0]), np.int32), np.ones(len(views[0])))
        for views in frozen
    ]
    target_of = jax.device_put((dict(blocks), channel_weights(config, backbone, sources)))
    iterator = draws.named(sources, section.batch, seed + 5)
    loop = fit.Loop(
        section=section, path="quant.reconstruction", name="reconstruction", workdir=workdir
    )
    advance = fit.jitted(make_step(config, tx), target_of)
    fitted = fit.fit(loop, fresh(params, tx), advance, iterator, report=report)
    trained = jax.device_get(fitted.state.params)
    return {"trainable": trained["model"]["backbone"], "scales": trained["scales"]}


def channel_weights(config: Config, backbone: Params, sources: Sequence[draws.Named]) -> np.ndarray:
    """1 / deviation of each channel of the float features, (channels,): all count alike."""
    # The deviation of one batch is near enough: it only balances the channels.
    first = draws.named(sources, features_lib.BATCH, start.data_seed(config) + 4)
    function = features_lib.part_function(backbone, level=config.model.level, entry=FROZEN_LEVEL)
    pictures = config.train.statistics_pictures
    return features_lib.channel_statistics(function(next(first)["features"]), pictures)["scale"]
