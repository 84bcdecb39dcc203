"""The losses of one step: next token, CTC, and retrieval against the text prototypes.

Pictures are classified over the captions of all training pictures, or a sample of them, not over
those of the batch. A task without rows in the batch has no loss.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmllm.common.config import Config
from mmllm.common.types import Array, Float, Int, Params
from mmllm.train import forward
from mmllm.train.text import prototypes as prototypes_lib

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
        is_caption = (batch["target_row"] < config.batch.captions).astype(loss.dtype)
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
    place: Int[Array, "v"] | None = None,
) -> Float[Array, "b"]:
    """Cross entropy of each image embedding over captions; a label below 0 counts as 0.

    Args:
      prototype_params: of `prototypes.TextPrototypes`.
      embedding: unit image embeddings.
      label: the place of each picture's caption among the captions given.
      prototype_sentences: their sentence embeddings.
      residual_keep: chance that a caption keeps its residual.
      key: of that chance.
      place: of the captions among all, where they are a sample (`pipeline.sample_prototypes`).
    """
    # For a caption, not for a picture: all pictures are compared with the same vectors.
    chance = jax.random.bernoulli(key, residual_keep, (prototype_sentences.shape[0],))
    vectors = prototypes_lib.apply(
        prototype_params, prototype_sentences, chance.astype(jnp.float32), place
    )
    scale = prototypes_lib.apply(prototype_params, method="scale")
    logits = scale * embedding @ vectors.T
    if place is not None:
        logits = jnp.where(place >= 0, logits, -jnp.inf)  # Padding is no caption.
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(label, 0))


def text_distances(
    texts: Float[Array, "b e"],
    prototypes: Float[Array, "v e"],
    target: Float[Array, "b e"],
    batch: Any,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean 1 - cosine of captions to their prototypes, and of words to their mapped sentences.

    A softmax over the prototypes would only tell captions apart, and leave the tower beside them.

    Args:
      texts: unit text embeddings.
      prototypes: unit vectors of the captions.
      target: unit vectors of the words; those of captions are not read.
      batch: "text_label" is the place of a caption in the prototypes, below 0 for a word.
    """
    label = batch["text_label"]
    known = (label >= 0)[:, None]
    target = jnp.where(known, jnp.take(prototypes, jnp.maximum(label, 0), axis=0), target)
    distance = 1.0 - jnp.sum(texts * target, axis=-1)
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
    """Pictures against the prototypes (label < 0: none), texts against prototypes and teacher."""
    sentences, place = prototypes_lib.of_batch(batch, prototype_sentences)
    parts: Parts = {}
    labels = [batch[name] for name in ("label", "name_label") if name in batch]
    # Without a corpus of names there is no caption to compare with.
    if labels and len(sentences):
        label = jnp.concatenate(labels)
        image = prototype_loss(
            prototype_params,
            outputs["embedding"],
            label,
            sentences,
            config.loss.residual_keep,
            key,
            place,
        )
        parts["retrieval"] = mean(image, (label >= 0).astype(jnp.float32))
    if "texts" in batch:
        words = prototypes_lib.apply(
            prototype_params, batch["text_teacher"].astype(jnp.float32), method="words"
        )
        vectors = prototypes_lib.vectors(prototype_params, sentences, place)
        # The tower follows the prototypes, and does not pull them towards itself.
        still = jax.lax.stop_gradient((vectors, words))
        captions, nouns = text_distances(outputs["texts"], *still, batch)
        parts |= {"text_caption": captions, "text_teacher": nouns}
    return parts


def line_loss(logits: Float[Array, "b n v"], batch: Any) -> Float[Array, ""]:
    """CTC loss per character of the text lines."""
    # 0 is both the padding and the blank of CTC, which no character may be.
    ids = batch["line_ids"]
    padding = (ids == 0).astype(jnp.float32)
    loss = optax.ctc_loss(logits, jnp.zeros(logits.shape[:2]), ids, padding)
    # Else long lines, whose sums are larger, would be all that counts.
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
    if "lines" in batch:
        parts["lines"] = line_loss(outputs["lines"], batch)
    weighted = (getattr(config.loss, name) * value for name, value in parts.items())
    return sum(weighted, jnp.float32(0)), parts
