"""The losses of one step: next token, CTC, and retrieval against the prototypes of all training captions.

Pictures are classified over the whole prototypes, not the batch.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmllm.common.config import Config
from mmllm.common.types import Array, Float, Int, Params
from mmllm.models import mmllm as model_lib
from mmllm.train import forward
from mmllm.train import prototypes as prototypes_lib

Parts = dict[str, Float[Array, ""]]


def mean(loss: Float[Array, "b"], weight: Float[Array, "b"]) -> Float[Array, ""]:
    """Weighted mean; 0 where nothing has weight."""
    return jnp.sum(loss * weight) / jnp.maximum(jnp.sum(weight), 1.0)


def token_losses(config: Config, outputs: forward.Outputs, batch: Any) -> Parts:
    """Mean cross entropy over the tokens of captions, answers, names and spoken names."""
    parts: Parts = {}
    for kind in ("", "name_", "spoken_"):
        if f"{kind}logits" not in outputs:
            continue
        loss = optax.softmax_cross_entropy_with_integer_labels(
            outputs[f"{kind}logits"], batch[f"{kind}target"]
        )
        weight = batch[f"{kind}target_weight"]
        if kind:
            parts[kind.removesuffix("_")] = mean(loss, weight)
            continue
        is_caption = (batch["target_row"] < config.mix.captioned).astype(loss.dtype)
        parts["caption"] = mean(loss, weight * is_caption)
        parts["vqa"] = mean(loss, weight * (1.0 - is_caption))
    return parts


def prototype_loss(
    prototype_params: Params,
    embedding: Float[Array, "b e"],
    label: Int[Array, "b"],
    prototype_sentences: Float[Array, "v w"],
    residual_keep: float,
    key: jax.Array,
) -> Float[Array, "b"]:
    """Cross entropy of each image embedding over the whole prototypes; a label below 0 counts as 0."""
    chance = jax.random.bernoulli(key, residual_keep, (prototype_sentences.shape[0],))
    vectors = prototypes_lib.apply(
        prototype_params, prototype_sentences, chance.astype(jnp.float32)
    )
    scale = prototypes_lib.apply(prototype_params, method="scale")
    return optax.softmax_cross_entropy_with_integer_labels(
        scale * embedding @ vectors.T, jnp.maximum(label, 0)
    )


def text_distances(
    texts: Float[Array, "b e"],
    prototypes: Float[Array, "v e"],
    target: Float[Array, "b e"],
    batch: Any,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean 1 - cosine of captions to their prototypes vectors, and of words to their mapped sentences.

    A softmax over the prototypes would only tell captions apart, and leave the tower beside the prototypes.

    Args:
      texts: unit text embeddings.
      prototypes: unit vectors of the captions.
      target: unit vectors of the words; those of captions are not read.
      batch: "text_label" is the place of a caption in the prototypes, below 0 for a word.
    """
    label = batch["text_label"]
    known = (label >= 0)[:, None]
    wanted = jnp.where(known, jnp.take(prototypes, jnp.maximum(label, 0), axis=0), target)
    distance = 1.0 - jnp.sum(texts * wanted, axis=-1)
    is_caption = known[:, 0].astype(distance.dtype)
    return mean(distance, is_caption), mean(distance, 1.0 - is_caption)


def retrieval_losses(
    config: Config,
    prototype_params: Params,
    outputs: forward.Outputs,
    batch: Any,
    prototype_sentences: Float[Array, "v w"],
    key: jax.Array,
) -> Parts:
    """Pictures against the prototypes (label < 0: none), the text tower against prototypes and teacher."""
    label = batch["label"]
    if config.mix.names:
        label = jnp.concatenate([label, batch["name_label"]])
    keep = config.loss.residual_keep
    image = prototype_loss(
        prototype_params, outputs["embedding"], label, prototype_sentences, keep, key
    )
    words = prototypes_lib.apply(
        prototype_params, batch["text_teacher"].astype(jnp.float32), method="words"
    )
    vectors = prototypes_lib.vectors(prototype_params, prototype_sentences)
    still = jax.lax.stop_gradient((vectors, words))
    captions, nouns = text_distances(outputs["texts"], *still, batch)
    return {
        "retrieval": mean(image, (label >= 0).astype(jnp.float32)),
        "text_caption": captions,
        "text_teacher": nouns,
    }


def line_loss(logits: Float[Array, "b n v"], batch: Any) -> Float[Array, ""]:
    """CTC loss per character of the text lines."""
    ids = batch["line_ids"]
    padding = (ids == 0).astype(jnp.float32)
    loss = optax.ctc_loss(logits, jnp.zeros(logits.shape[:2]), ids, padding)
    loss = loss / jnp.maximum(jnp.sum(1.0 - padding, axis=1), 1.0)
    return mean(loss, jnp.ones_like(loss))


def total(
    config: Config,
    prototype_params: Params,
    outputs: forward.Outputs,
    batch: Any,
    prototype_sentences: Float[Array, "v w"],
    key: jax.Array,
) -> tuple[Float[Array, ""], Parts]:
    """The weighted sum of `cfg.loss`, and each loss by name."""
    parts = token_losses(config, outputs, batch)
    parts |= retrieval_losses(config, prototype_params, outputs, batch, prototype_sentences, key)
    parts["lines"] = line_loss(outputs["lines"], batch)
    weighted = (getattr(config.loss, name) * value for name, value in parts.items())
    return sum(weighted, jnp.float32(0)), parts


def total_loss(
    config: Config,
    model: model_lib.Mmllm,
    params: Params,
    batch: Any,
    prototype_sentences: Float[Array, "v w"],
    key: jax.Array,
) -> tuple[Float[Array, ""], Parts]:
    """`total` of what the model makes of a batch."""
    forward_key, prototype_key = jax.random.split(key)
    outputs = forward.run(config, model, params, batch, prototype_sentences, forward_key)
    return total(config, params["prototypes"], outputs, batch, prototype_sentences, prototype_key)
