"""In the place of `multitask` for a run regained from its bundle: prototypes, which it lacks.

The reverse of `align_text`: here the model stands still, image embedding and text tower alike, and
the prototypes move to where both point. Takes five minutes on 2 CPU cores.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmllm.common.config import Config
from mmllm.common.types import Array, Params
from mmllm.data import pipeline, registry
from mmllm.models import mmllm as model_lib
from mmllm.train import draws, fit, losses, optimizer
from mmllm.train import step as step_lib
from mmllm.train.state import TrainState, fresh
from mmllm.train.text import prototypes as prototypes_lib


def fit_prototypes(
    config: Config,
    model_params: Params,
    arrays: pipeline.TrainingArrays,
    report: fit.Report = print,
) -> Params:
    """Trains fresh prototypes with the losses a run trains them with, and towards the text tower.

    Args:
      config: of the run; `config.regain` holds steps and rates.
      model_params: the finished model, aligned tower included; stays as it is.
      arrays: of the run.
      report: takes the progress lines.

    Returns:
      Parameters of `prototypes.TextPrototypes`.

    Raises:
      FloatingPointError: a loss that is not finite.
    """
    section = config.regain
    sentences = jnp.float32(arrays.texts.prototype_sentences)
    named = [
        draws.Named(each.features, each.label, each.weight)
        for each in (arrays.captioned[name] for name in registry.of(config, "name"))
    ]
    prototypes = prototypes_lib.init(config, len(sentences), jax.random.key(config.seed))
    tx = optimizer.make(section)
    # On the device once, not copied there by every step.
    frozen = jax.tree.map(jnp.asarray, dict(model_params))
    pictures = draws.named(named, section.pictures, config.seed)
    texts = draws.texts(arrays.texts, config.align.batch, config.seed + 3)
    batches = (picture | text for picture, text in zip(pictures, texts, strict=True))
    loop = fit.Loop(section=section, path="regain", name="prototypes")
    advance = fit.jitted(make_step(config, tx), frozen, sentences)
    fitted = fit.fit(loop, fresh(prototypes, tx), advance, batches, report=report)
    return jax.device_get(fitted.state.params)


def make_step(config: Config, tx: optax.GradientTransformation) -> step_lib.Step:
    """A step: state x batch x (parameters of the model, sentences) -> state, metrics."""
    model, weight = model_lib.build(config.model), config.loss

    def step(
        state: TrainState, batch: Any, model_params: Params, sentences: jax.Array
    ) -> tuple[TrainState, step_lib.Metrics]:
        key = jax.random.fold_in(jax.random.key(1), state.step + 1)
        dropout_key, prototype_key = jax.random.split(key)
        features, frozen = batch["features"].astype(jnp.float32), {"params": model_params}
        # Channels are dropped as in the run that shipped: prototypes must bear such embeddings.
        rngs = {"dropout": dropout_key}
        seen: Any = model.apply(frozen, features, train=True, rngs=rngs, method="embed_features")
        texts: Any = model.apply(frozen, batch["texts"], method="embed_text")
        words = batch["text_teacher"].astype(jnp.float32)

        def loss_of(prototypes: Params) -> tuple[Array, step_lib.Metrics]:
            keep = weight.residual_keep
            pictures = losses.prototype_loss(
                prototypes, seen, batch["label"], sentences, keep, prototype_key
            )
            mapped = prototypes_lib.apply(prototypes, words, method="words")
            vectors = prototypes_lib.vectors(prototypes, sentences)
            captions, nouns = losses.text_distances(texts, vectors, mapped, batch)
            retrieval = jnp.mean(pictures)
            # The weights of the run's own losses, of which these three move the prototypes.
            total = weight.retrieval * retrieval + weight.text_caption * captions
            parts = {"retrieval": retrieval, "captions": captions, "words": nouns}
            return total + weight.text_teacher * nouns, parts

        return step_lib.update(state, loss_of, tx)

    return step
