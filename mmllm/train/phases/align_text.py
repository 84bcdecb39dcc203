"""Phase 6, the text tower aligned with the finished prototypes: the last phase, minutes long.

Reads the run's last checkpoint, and of a student its teacher's prototypes; leaves `run.TOWER`.
Skipped with `align.steps` 0, and for a run that has not come to its last step.

During the run the prototypes move under the tower; here they stand still, and everything else is
frozen, the token embeddings included, since the decoder shares them. The tower of a quantized run
is aligned on its grids, together with its scales.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmllm.common import tensors
from mmllm.common.config import Config
from mmllm.common.types import Array, Params
from mmllm.data import pipeline
from mmllm.models import mmllm as model_lib
from mmllm.quant import tree
from mmllm.train import checkpoint, draws, fit, losses, optimizer
from mmllm.train import step as step_lib
from mmllm.train.run import Run
from mmllm.train.state import TrainState, fresh
from mmllm.train.student import plan, start
from mmllm.train.text import prototypes as prototypes_lib

PART = "text_tower"


def run(run: Run) -> None:
    """Leaves the aligned tower."""
    config, arrays = run.config, run.arrays
    assert arrays is not None, "cache_features runs first"
    if not config.align.steps or not run.trained or run.tower.exists():
        return
    params = checkpoint.load_params(run.workdir)
    planned = plan.FLOAT
    if config.quant.start:  # the prototypes are the teacher's
        params = {**start.load(start.folder(config)), **params}
        planned = plan.trained(config)
    align(config, params, arrays, run.tower, run.report, planned)


def align(
    config: Config,
    params: Params,
    arrays: pipeline.TrainingArrays,
    path: Path,
    report: fit.Report = print,
    planned: plan.Plan = plan.FLOAT,
) -> Params:
    """Trains the tower for `config.align.steps` and writes it to `path`, unless it is there.

    Args:
      config: the experiment.
      params: {"model", "prototypes"} of the finished run; of a quantized one its "scales" too,
        and the prototypes of its teacher.
      arrays: of the run; only `texts` is read.
      path: safetensors file for the tower.
      report: takes the progress lines.
      planned: what is rounded, see `student.plan.trained`.

    Returns:
      {"model", "scales"}, each with the tower alone.

    Raises:
      FloatingPointError: a loss that is not finite.
      OSError: the file could not be written.
    """
    if path.exists():
        return tensors.read(path)
    scales = params.get("scales", {})
    # Copied: the first step gives its state away.
    tower = jax.tree.map(
        lambda leaf: jnp.array(leaf, copy=True),
        {
            "model": {PART: params["model"][PART]},
            "scales": {PART: scales[PART]} if PART in scales else {},
        },
    )
    tx = optimizer.make(config.align, config.quant.scale_rate)
    step = make_step(config, tx, params, arrays.texts.prototype_sentences, planned)
    iterator = draws.texts(arrays.texts, config.align.batch, config.seed + 3)
    loop = fit.Loop(section=config.align, path="align", name="text")
    fitted = fit.fit(loop, fresh(tower, tx), fit.jitted(step), iterator, report=report)
    tower = jax.device_get(fitted.state.params)
    tensors.write(path, tower)
    return tower


def make_step(
    config: Config,
    tx: optax.GradientTransformation,
    params: Params,
    prototype_sentences: np.ndarray,
    planned: plan.Plan,
) -> step_lib.Step:
    """A step: state x batch -> state, metrics; the state's parameters are the tower alone.

    The loss is the distance of captions to their prototypes, and of words to their mapped
    sentences.
    """
    # A tower that is on its grids rounds its inputs as well.
    model = model_lib.build(config.model, planned.rules)
    sentences = jnp.asarray(prototype_sentences, jnp.float32)
    vectors = prototypes_lib.vectors(params["prototypes"], sentences)
    # Quantized tokens are shared with the decoder: the tower must fit their codes, not the floats.
    tower_weights = {path: r for path, r in planned.weights.items() if path.startswith(f"{PART}/")}
    shared = {path: rule for path, rule in planned.weights.items() if path.startswith("embed/")}
    embed: Any = {"embed": jax.tree.map(jnp.asarray, params["model"]["embed"])}
    embed = tree.fake_quantize(embed, params.get("scales", {}), shared)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, step_lib.Metrics]:
        words = batch["text_teacher"].astype(jnp.float32)
        # Words have no prototype: their target is the map of their sentence.
        mapped = prototypes_lib.apply(params["prototypes"], words, method="words")

        def loss_of(tower: Params) -> tuple[Array, step_lib.Metrics]:
            rounded = tree.fake_quantize(tower["model"], tower["scales"], tower_weights)
            inputs = {"params": {**embed, **rounded}}
            texts: Any = model.apply(inputs, batch["texts"], method="embed_text")
            captions, nouns = losses.text_distances(texts, vectors, mapped, batch)
            parts = {"captions": captions, "words": nouns}
            return captions + config.align.word_weight * nouns, parts

        return step_lib.update(state, loss_of, tx)

    return step
