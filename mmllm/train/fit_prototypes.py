"""Fits a caption prototypes to a finished model, for a run regained from a bundle, which has none.

The reverse of `align_text`: here the model stands still, image embedding and text tower alike, and
the prototypes moves to where both point. Takes five minutes on 2 CPU cores.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmllm.common.config import Config
from mmllm.common.types import Array, Float, Params
from mmllm.data import pipeline
from mmllm.models import mmllm as model_lib
from mmllm.train import align_text, losses, tune_backbone
from mmllm.train import prototypes as prototypes_lib

STEPS = 3_000
PICTURES = 256  # a step
LEARNING_RATE = 1e-2  # peak
REPORT_EVERY = 500  # steps
Report = Callable[[str], None]


def fit(
    config: Config,
    model_params: Params,
    arrays: pipeline.TrainingArrays,
    report: Report = print,
    steps: int | None = None,
) -> Params:
    """Trains a fresh prototypes with the losses a run trains it with, and towards the text tower.

    Args:
      config: of the run.
      model_params: the finished model, aligned tower included; stays as it is.
      arrays: of the run.
      report: takes the progress lines.
      steps: how many, STEPS by default.

    Returns:
      Parameters of `prototypes.TextPrototypes`.

    Raises:
      FloatingPointError: a loss that is not finite.
    """
    steps = STEPS if steps is None else steps
    model, prototype_sentences = (
        model_lib.build(config.model),
        jnp.float32(arrays.texts.prototype_sentences),
    )
    held = {"params": jax.tree.map(jnp.asarray, dict(model_params))}
    named = [
        tune_backbone.Named(each.features, each.label, each.weight)
        for each in (arrays.emoji, arrays.stamps)
    ]
    fresh = prototypes_lib.TextPrototypes(len(prototype_sentences), config.model.embed_dim).init(
        jax.random.key(config.seed),
        prototype_sentences,
        jnp.ones(len(prototype_sentences)),
        method="touch",
    )
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, steps)
    tx = optax.adam(schedule, b2=0.98)

    def loss_of(
        prototypes: Params, batch: Any, number: Array
    ) -> tuple[Float[Array, ""], tuple[Float[Array, ""], ...]]:
        dropout_key, prototype_key = jax.random.split(jax.random.fold_in(jax.random.key(1), number))
        features = batch["features"].astype(jnp.float32)
        rngs = {"dropout": dropout_key}
        seen: Any = model.apply(held, features, train=True, rngs=rngs, method="embed_features")
        keep = config.loss.residual_keep
        pictures = losses.prototype_loss(
            prototypes, seen, batch["label"], prototype_sentences, keep, prototype_key
        )
        texts: Any = model.apply(held, batch["texts"], method="embed_text")
        mapped = prototypes_lib.apply(
            prototypes, batch["text_teacher"].astype(jnp.float32), method="words"
        )
        vectors = prototypes_lib.vectors(prototypes, prototype_sentences)
        parts = (jnp.mean(pictures), *losses.text_distances(texts, vectors, mapped, batch))
        weight = config.loss
        total = weight.retrieval * parts[0]
        return total + weight.text_caption * parts[1] + weight.text_teacher * parts[2], parts

    @jax.jit
    def step(
        prototypes: Params, state: optax.OptState, batch: Any, number: Array
    ) -> tuple[Params, optax.OptState, tuple[Float[Array, ""], ...]]:
        (_, parts), grads = jax.value_and_grad(loss_of, has_aux=True)(prototypes, batch, number)
        updates, state = tx.update(grads, state, prototypes)
        moved: Any = optax.apply_updates(prototypes, updates)
        return moved, state, parts

    prototypes = dict(fresh["params"])
    state = tx.init(prototypes)
    pictures, texts = (
        tune_backbone.draws(named, PICTURES, config.seed),
        align_text.draws(config, arrays),
    )
    for number in range(1, steps + 1):
        batch = next(pictures) | next(texts)
        prototypes, state, parts = step(prototypes, state, batch, jnp.int32(number))
        if number % REPORT_EVERY == 0 or number == steps:
            values = [float(part) for part in parts]
            if not np.isfinite(sum(values)):
                raise FloatingPointError(f"prototypes step {number}: the loss is not finite")
            retrieval, captions, words = values
            report(
                f"prototypes: step {number}/{steps}  retrieval {retrieval:.3f}  "
                f"captions {captions:.3f}  words {words:.3f}"
            )
    return jax.device_get(prototypes)
