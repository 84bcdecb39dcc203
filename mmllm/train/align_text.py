"""Aligns the text tower with the finished prototypes: the last stage of a run, minutes long.

During the run the prototypes moves under the tower; here it stands still, and everything else is frozen,
the token embeddings included, since the decoder shares them. The tower of a quantized run is
aligned on its grids, together with its scales.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmllm.common import tensors
from mmllm.common.config import Config
from mmllm.common.types import Array, Params
from mmllm.data import pipeline
from mmllm.models import mmllm as model_lib
from mmllm.quant import rules as rules_lib
from mmllm.quant import tree
from mmllm.quant.rules import Rule
from mmllm.train import losses, optimizer
from mmllm.train import prototypes as prototypes_lib

TOWER = "tower.safetensors"
PART = "text_tower"
REPORT_EVERY = 250  # steps
Report = Callable[[str], None]


def make_step(
    config: Config, params: Params, prototype_sentences: np.ndarray, planned: Mapping[str, Rule]
) -> tuple[optax.GradientTransformation, Callable[..., tuple[Params, Any, Array, Array]]]:
    """The optimizer, and a step: tower x optimizer state x batch -> the same and both distances.

    The tower is {"model", "scales"}, each with its part of the tower alone.
    """
    model = model_lib.build(config.model, rules_lib.parse(config.quant.rules))
    setting = config.align
    vectors = prototypes_lib.vectors(
        params["prototypes"], jnp.asarray(prototype_sentences, jnp.float32)
    )
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, setting.learning_rate, max(1, setting.steps // 20), max(setting.steps, 2)
    )
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, b2=0.98, weight_decay=0.01, mask=optimizer.decays),
        optax.masked(optax.scale(config.quant.scale_rate), optimizer.is_scale),
    )
    inside = {path: rule for path, rule in planned.items() if path.startswith(f"{PART}/")}
    shared = {path: rule for path, rule in planned.items() if path.startswith("embed/")}
    embed: Any = {"embed": jax.tree.map(jnp.asarray, params["model"]["embed"])}
    embed = tree.fake_quantize(embed, params.get("scales", {}), shared)

    @jax.jit
    def step(tower: Params, state: Any, batch: Any) -> tuple[Params, Any, Array, Array]:
        sentences = batch["text_teacher"].astype(jnp.float32)
        mapped = prototypes_lib.apply(params["prototypes"], sentences, method="words")

        def loss_of(tower: Params) -> tuple[Array, tuple[Array, Array]]:
            held = {**embed, **tree.fake_quantize(tower["model"], tower["scales"], inside)}
            texts: Any = model.apply({"params": held}, batch["texts"], method="embed_text")
            parts = losses.text_distances(texts, vectors, mapped, batch)
            return parts[0] + setting.word_weight * parts[1], parts

        (_, parts), grads = jax.value_and_grad(loss_of, has_aux=True)(tower)
        updates, state = tx.update(grads, state, tower)
        moved: Any = optax.apply_updates(tower, updates)
        return moved, state, parts[0], parts[1]

    return tx, step


def align(
    config: Config,
    params: Params,
    arrays: pipeline.TrainingArrays,
    path: Path,
    report: Report = print,
    planned: Mapping[str, Rule] | None = None,
) -> Params:
    """Trains the tower for `config.align.steps` and writes it to `path`, unless it is there.

    Args:
      config: the experiment.
      params: {"model", "prototypes"} of the finished run; of a quantized one its "scales" too, and the
        prototypes of its teacher.
      arrays: of the run; only `texts` is read.
      path: safetensors file for the tower.
      report: takes the progress lines.
      planned: the quantized weights, see `stages.trained`.

    Returns:
      {"model", "scales"}, each with the tower alone.

    Raises:
      FloatingPointError: a loss that is not finite.
      OSError: the file could not be written.
    """
    if path.exists():
        return tensors.read(path)
    setting = config.align
    tx, step = make_step(config, params, arrays.texts.prototype_sentences, planned or {})
    scales = params.get("scales", {})
    tower: Any = {
        "model": {PART: params["model"][PART]},
        "scales": {PART: scales[PART]} if PART in scales else {},
    }
    state, iterator = tx.init(tower), draws(config, arrays)
    for number in range(1, setting.steps + 1):
        tower, state, captions, words = step(tower, state, next(iterator))
        if number % REPORT_EVERY == 0 or number == setting.steps:
            if not np.isfinite(float(captions) + float(words)):
                raise FloatingPointError(
                    f"text step {number}: the loss is not finite; lower align.learning_rate"
                )
            report(
                f"text: step {number}/{setting.steps}  captions {float(captions):.3f}  "
                f"words {float(words):.3f}"
            )
    tower = jax.device_get(tower)
    tensors.write(path, tower)
    return tower


def joined(params: Params, path: Path) -> Params:
    """Parameters of a run with the tower that `align` wrote in the place of the run's own.

    Raises:
      FileNotFoundError: it wrote none.
    """
    tower = tensors.read(path)
    return dict(params) | {part: {**params[part], **tower[part]} for part in tower}


def draws(config: Config, arrays: pipeline.TrainingArrays) -> grain.DatasetIterator:
    """An endless iterator over texts: half captions, half words."""
    dataset = grain.MapDataset.range(1).repeat().seed(config.seed + 3)
    dataset = dataset.random_map(DrawTexts(arrays.texts, config.align.batch))
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))


class DrawTexts(grain.transforms.RandomMap):
    """Step number + generator -> texts, labels and sentence embeddings of one batch."""

    def __init__(self, texts: pipeline.Texts, count: int) -> None:
        self._texts, self._count = texts, count

    # pyrefly: ignore[bad-override]  # The abstract method has no return type, so None is inferred.
    def random_map(self, element: Any, rng: np.random.Generator) -> pipeline.Batch:
        del element  # The generator is already the step's own.
        return pipeline.draw_texts(self._texts, self._count, rng)
