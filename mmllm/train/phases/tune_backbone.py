"""Phase 2, the backbone's last blocks tuned on the names of drawings.

Reads the tables and the pictures of the corpora with the task "name"; leaves their features at
`blocks.FROZEN_LEVEL` in the feature cache, and the tuned blocks, in float16, beside the
checkpoints of their training. Skipped with `tune.steps` 0; a student takes the blocks of the run it
starts from.

The image embedding and the prototypes learn along, and are left behind: on the tuned features the
run learns better ones anew.
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
from mmllm.data import registry
from mmllm.models import mmllm as model_lib
from mmllm.train import checkpoint, draws, fit, losses, optimizer
from mmllm.train import step as step_lib
from mmllm.train.backbone import blocks as backbone_lib
from mmllm.train.backbone import feature_cache
from mmllm.train.backbone import features as features_lib
from mmllm.train.backbone.blocks import FROZEN_LEVEL, TUNED
from mmllm.train.draws import Named
from mmllm.train.phases import prepare
from mmllm.train.run import Run
from mmllm.train.state import TrainState, fresh
from mmllm.train.student import start
from mmllm.train.text import prototypes as prototypes_lib

Report = fit.Report


def run(run: Run) -> None:
    """Leaves `TUNED` in the folder of the backbone."""
    config, tables = run.config, run.tables
    assert tables is not None, "prepare runs first"
    if not config.tune.steps:
        return
    folder = feature_cache.backbone_folder(config, tables)
    given = run.tuned
    # A student rounds the very backbone whose features its teacher has learned to read.
    if config.quant.start:
        given = tensors.read(start.folder(config) / TUNED)["trainable"]
    if given is not None:
        keep(folder / TUNED, given)
    if (folder / TUNED).exists():
        return
    # Once for all steps: the frozen blocks are most of the backbone's work.
    frozen = frozen_features(config, run.report)
    named = labelled(config, tables, frozen)
    untuned = backbone_lib.pretrained(config)
    near = last_features(config, untuned, named)
    sentences = np.asarray(prepare.sentences(tables)).astype(np.float32)
    pictures = config.train.statistics_pictures
    # Of the untuned features; the tuning moves them, and the affine with them.
    affine = features_lib.channel_statistics(near[0].features[0], pictures)
    params = init_params(config, untuned, affine, sentences)
    tuned = tune(config, params, near, named, sentences, folder / "tune", run.report)
    tensors.write(folder / TUNED, {"trainable": backbone_lib.half(tuned["trainable"])})


def keep(path: Path, blocks: Params) -> None:
    """Writes tuned blocks that are given, or checks that they are the ones that are there.

    Raises:
      ValueError: other blocks are there.
    """
    # Compared as shipped: a bundle gives them back in float16 alone.
    shipped = {"trainable": backbone_lib.half(blocks)}
    if not path.exists():
        tensors.write(path, shipped)
    known = tensors.read(path, floats=False)
    if jax.tree.structure(known) != jax.tree.structure(shipped) or not all(
        jax.tree.leaves(jax.tree.map(np.array_equal, known, shipped))
    ):
        raise ValueError(f"{path} is the backbone of another run; remove {path.parent} first")


def frozen_features(config: Config, report: Report) -> dict[str, tuple[np.ndarray, ...]]:
    """Features at `FROZEN_LEVEL` of all views of the named corpora, written where missing."""
    function = features_lib.part_function(backbone_lib.pretrained(config), level=FROZEN_LEVEL)
    found = {}
    for corpus in registry.of(config, "name"):
        where, views = feature_cache.frozen_folder(config, corpus), registry.views(config, corpus)
        for view in range(views + 1):
            path = feature_cache.file(where, view)
            if not path.exists():
                pixels = feature_cache.pixels(config, corpus, view)
                feature_cache.write(path, pixels, function, report)
        found[corpus] = feature_cache.opened(where, views)
    return found


def labelled(
    config: Config, tables: Path, features: dict[str, tuple[np.ndarray, ...]]
) -> list[Named]:
    """Features of each corpus with the places of their names among the prototypes."""
    return [
        Named(
            views,
            prepare.labels_of(tables, corpus),
            np.load(tables / f"{corpus}_captions.npz")["weight"],
        )
        for corpus, views in features.items()
    ]


def last_features(config: Config, untuned: Params, named: Sequence[Named]) -> list[Named]:
    """Features of the untuned backbone's last level, of a few views."""
    function = features_lib.part_function(untuned, level=config.model.level, entry=FROZEN_LEVEL)
    found = []
    for each in named:
        views = [
            np.concatenate([function(part) for _, part in features_lib.in_batches(view)])
            for view in each.features[: config.tune.head_views]
        ]
        found.append(Named(views, each.label, each.weight))
    return found


def init_params(
    config: Config, backbone: Params, affine: dict[str, np.ndarray], prototype_sentences: np.ndarray
) -> Params:
    """{"trainable", "feature_affine", "image_embedding", "prototypes"}: what tuning trains."""
    model_key, prototype_key = jax.random.split(jax.random.key(config.seed))
    model = model_lib.init_params(config.model, model_key)
    return {
        "trainable": backbone_lib.split(backbone)[1],
        "feature_affine": {name: jnp.asarray(value) for name, value in affine.items()},
        "image_embedding": model["image_embedding"],
        "prototypes": prototypes_lib.init(config, len(prototype_sentences), prototype_key),
    }


def make_step(
    config: Config, tx: optax.GradientTransformation, *, from_frozen: bool
) -> step_lib.Step:
    """A step on frozen features, or on features of the backbone as it is (`from_frozen` false).

    The loss is the cross entropy of each picture over the names of the prototypes.
    """
    model, blocks = model_lib.build(config.model), backbone_lib.trainable_blocks()

    def step(
        state: TrainState, batch: Any, prototype_sentences: jax.Array
    ) -> tuple[TrainState, step_lib.Metrics]:
        # Numbers of its own for each use of the seed, as the run has seed + 1.
        key = jax.random.fold_in(jax.random.key(config.seed + 2), state.step)
        dropout_key, prototype_key = jax.random.split(key)

        def loss_of(params: Params) -> tuple[Array, step_lib.Metrics]:
            features = batch["features"].astype(jnp.float32)
            if from_frozen:
                features = jnp.asarray(blocks.apply({"params": params["trainable"]}, features))
            embedder = {name: params[name] for name in ("feature_affine", "image_embedding")}
            embedding: Any = model.apply(
                {"params": embedder},
                features,
                train=True,
                rngs={"dropout": dropout_key},
                method="embed_features",
            )
            loss = losses.prototype_loss(
                params["prototypes"],
                embedding,
                batch["label"],
                prototype_sentences,
                config.tune.residual_keep,
                prototype_key,
            )
            return jnp.mean(loss), {}

        return step_lib.update(state, loss_of, tx)

    return step


def train_head(
    config: Config,
    params: Params,
    features: Sequence[Named],
    prototype_sentences: np.ndarray,
    report: Report = print,
) -> Params:
    """Trains all but the blocks, on features of the untuned backbone, for `tune.head_steps`."""
    section = config.tune.head
    # Copied, as the steps donate them; without the blocks, which weight decay would shrink.
    head = {name: jax.tree.map(jnp.array, params[name]) for name in params if name != "trainable"}
    tx = optimizer.make(section)
    advance = fit.jitted(make_step(config, tx, from_frozen=False), prototype_sentences)
    iterator = draws.named(features, config.tune.head_batch, config.seed)
    loop = fit.Loop(section=section, path="tune", rate_field="head_learning_rate", name="head")
    trained = fit.fit(loop, fresh(head, tx), advance, iterator, report=report).state
    return {**trained.params, "trainable": params["trainable"]}


def tune(
    config: Config,
    params: Params,
    features: Sequence[Named],
    frozen: Sequence[Named],
    prototype_sentences: np.ndarray,
    workdir: Path,
    report: Report = print,
) -> Params:
    """Trains the image embedding on features of the untuned backbone, then the blocks with it.

    Args:
      config: `config.tune` holds steps, batches and learning rates.
      params: of `init_params`.
      features: of the untuned backbone's last level, a few views.
      frozen: features at `FROZEN_LEVEL` of all views.
      prototype_sentences: (prototypes, 384) sentence embeddings.
      workdir: for checkpoints; an interrupted tuning goes on from the newest.
      report: takes the progress lines.

    Returns:
      The tuned parameters.

    Raises:
      FloatingPointError: a loss that is not finite.
      OSError: a checkpoint could not be written.
    """
    section = config.tune
    # First the embedding: with a random one, the gradients would spoil the pretrained blocks.
    if not checkpoint.latest_step(workdir / checkpoint.FOLDER):
        params = train_head(config, params, features, prototype_sentences, report)
    tx = optimizer.make(section)
    advance = fit.jitted(make_step(config, tx, from_frozen=True), prototype_sentences)
    iterator = draws.named(frozen, section.batch, config.seed + 1)
    loop = fit.Loop(section=section, path="tune", name="backbone", workdir=workdir)
    fitted = fit.fit(loop, fresh(params, tx), advance, iterator, report=report)
    return jax.device_get(fitted.state.params)
