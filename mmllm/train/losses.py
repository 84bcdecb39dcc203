"""The losses of one step: next token, CTC, and retrieval against the bank of all training captions.

The bank holds one vector for each unique English training caption: a linear map of its sentence
embedding plus a free residual that is dropped at random, so that the map alone must carry meaning
to captions never seen. Images are classified over the whole bank, not the batch; the text tower
learns to reproduce the bank from text. Only the tower is shipped.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mmllm.common.config import Config
from mmllm.common.types import Array, Float, Int, Params
from mmllm.models import layers
from mmllm.models import mmllm as model_lib

TEACHER_WIDTH = 384
INITIAL_SCALE = 16.0
MAX_SCALE = 100.0


class CaptionBank(nn.Module):
    """Targets of the retrieval losses; a part of training only."""

    captions: int
    embed_dim: int

    def setup(self) -> None:
        self.project = layers.Dense(self.embed_dim, use_bias=False)
        self.residual = self.param(
            "residual",
            nn.initializers.normal(self.embed_dim**-0.5),
            (self.captions, self.embed_dim),
        )
        self.log_scale = self.param("log_scale", lambda _: jnp.log(jnp.float32(INITIAL_SCALE)))

    def __call__(
        self, teacher: Float[Array, "v w"], keep: Float[Array, "v"]
    ) -> Float[Array, "v e"]:
        """Unit vectors of all captions; `keep` is 1 where the residual takes part."""
        return layers.unit_norm(self.words(teacher) + 0.5 * self.residual * keep[:, None])

    def touch(self, teacher: Float[Array, "v w"], keep: Float[Array, "v"]) -> None:
        """Touches every parameter, for `init`."""
        self(teacher, keep)
        self.scale()

    def words(self, teacher: Float[Array, "b w"]) -> Float[Array, "b e"]:
        """Sentence embeddings -> unit vectors of the shared space."""
        return layers.unit_norm(self.project(teacher))

    def scale(self) -> Float[Array, ""]:
        """Inverse temperature of the softmax over the bank."""
        return jnp.minimum(jnp.exp(self.log_scale), MAX_SCALE)


def _apply(module: nn.Module, params: Params, *arguments: Any, **options: Any) -> Any:
    """`module.apply` with parameters alone; its type, which flax leaves open, is the caller's."""
    return module.apply({"params": params}, *arguments, **options)


def _mean(loss: Float[Array, "b"], weight: Float[Array, "b"]) -> Float[Array, ""]:
    return jnp.sum(loss * weight) / jnp.maximum(jnp.sum(weight), 1.0)


def next_token(
    model: model_lib.Mmllm, params: Params, prefix: jax.Array, batch: Any, kind: str = ""
) -> Float[Array, "t"]:
    """Cross entropy of each target of a batch; `kind` is the prefix of its fields' names."""
    texts = batch[f"{kind}ids"], batch[f"{kind}start"]
    hidden = _apply(model, params, prefix, *texts, method="decode_hidden")
    flat = hidden.reshape(-1, hidden.shape[-1])
    wanted = jnp.take(flat, batch[f"{kind}position"], axis=0)
    logits = _apply(model, params, wanted, method="logits")
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[f"{kind}target"])


def decoder_losses(
    config: Config, model: model_lib.Mmllm, params: Params, prefix: jax.Array, batch: Any
) -> dict[str, Float[Array, ""]]:
    """Mean cross entropy over the caption tokens and over the answer tokens."""
    loss = next_token(model, params, prefix, batch)
    is_caption = (batch["target_row"] < config.mix.captioned).astype(loss.dtype)
    weight = batch["target_weight"]
    return {
        "caption": _mean(loss, weight * is_caption),
        "vqa": _mean(loss, weight * (1.0 - is_caption)),
    }


def bank_loss(
    bank_params: Params,
    embedding: Float[Array, "b e"],
    label: Int[Array, "b"],
    bank_teacher: Float[Array, "v w"],
    residual_keep: float,
    key: jax.Array,
) -> Float[Array, "b"]:
    """Cross entropy of each image embedding over the whole bank; a label below 0 counts as 0."""
    bank = CaptionBank(bank_teacher.shape[0], embedding.shape[-1])
    chance = jax.random.bernoulli(key, residual_keep, (bank_teacher.shape[0],))
    vectors = _apply(bank, bank_params, bank_teacher, chance.astype(jnp.float32))
    scale = _apply(bank, bank_params, method="scale")
    return optax.softmax_cross_entropy_with_integer_labels(
        scale * embedding @ vectors.T, jnp.maximum(label, 0)
    )


def retrieval_losses(
    config: Config,
    model: model_lib.Mmllm,
    params: Params,
    embedding: Float[Array, "b e"],
    label: Int[Array, "b"],
    batch: Any,
    bank_teacher: Float[Array, "v w"],
    key: jax.Array,
) -> dict[str, Float[Array, ""]]:
    """Image against the bank (label < 0: none), text tower against bank and sentence teacher."""
    known = (label >= 0).astype(jnp.float32)
    keep = config.loss.residual_keep
    image = bank_loss(params["bank"], embedding, label, bank_teacher, keep, key)
    bank = CaptionBank(bank_teacher.shape[0], config.model.embed_dim)
    words = _apply(bank, params["bank"], batch["text_teacher"].astype(jnp.float32), method="words")
    captions, nouns = text_distances(
        model,
        params["model"],
        jax.lax.stop_gradient(bank_vectors(params["bank"], bank_teacher)),
        {**batch, "text_target": jax.lax.stop_gradient(words)},
    )
    return {
        "retrieval": _mean(image, known),
        "text_caption": captions,
        "text_teacher": nouns,
    }


def bank_vectors(bank_params: Params, bank_teacher: Float[Array, "v w"]) -> Float[Array, "v e"]:
    """Unit vectors of all captions, residuals included."""
    bank = CaptionBank(*bank_params["residual"].shape)
    return _apply(bank, bank_params, bank_teacher, jnp.ones(bank_teacher.shape[0]))


def text_distances(
    model: model_lib.Mmllm, params: Params, bank: Float[Array, "v e"], batch: Any
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean 1 - cosine of captions to their bank vectors, and of words to their mapped sentences.

    A softmax over the bank would only tell captions apart, and leave the tower beside the bank.
    `batch` holds "texts", "text_label" and "text_target", unit vectors for the words.
    """
    text = _apply(model, params, batch["texts"], method="embed_text")
    label = batch["text_label"]
    known = (label >= 0)[:, None]
    target = jnp.where(known, jnp.take(bank, jnp.maximum(label, 0), axis=0), batch["text_target"])
    distance = 1.0 - jnp.sum(text * target, axis=-1)
    is_caption = known[:, 0].astype(distance.dtype)
    return _mean(distance, is_caption), _mean(distance, 1.0 - is_caption)


def spoken_loss(
    config: Config,
    model: model_lib.Mmllm,
    params: Params,
    batch: Any,
    bank_teacher: Float[Array, "v w"],
    key: jax.Array,
) -> Float[Array, ""]:
    """Cross entropy of captions said from their bank vectors, without a picture.

    The vectors get noise of a random length up to `loss.spoken_noise`, as pictures only come near
    their name's vector. Source: CapDec (Nukrai et al., 2022), with noise of one fixed length.
    """
    direction_key, length_key = jax.random.split(key)
    vectors = jax.lax.stop_gradient(bank_vectors(params["bank"], bank_teacher))
    vectors = jnp.take(vectors, batch["spoken_label"], axis=0)
    noise = jax.random.normal(direction_key, vectors.shape) * vectors.shape[1] ** -0.5
    length = jax.random.uniform(length_key, (len(vectors), 1)) * config.loss.spoken_noise
    embedding = layers.unit_norm(vectors + length * noise)
    prefix = _apply(model, params["model"], embedding, method="name_prefix")
    loss = next_token(model, params["model"], prefix, batch, "spoken_")
    return _mean(loss, batch["spoken_target_weight"])


def line_loss(model: model_lib.Mmllm, params: Params, batch: Any) -> Float[Array, ""]:
    """CTC loss per character of the text lines."""
    lines = batch["lines"].astype(jnp.float32)
    logits = _apply(model, params, lines, method="read_lines")
    ids = batch["line_ids"]
    padding = (ids == 0).astype(jnp.float32)
    loss = optax.ctc_loss(logits, jnp.zeros(logits.shape[:2]), ids, padding)
    loss = loss / jnp.maximum(jnp.sum(1.0 - padding, axis=1), 1.0)
    return _mean(loss, jnp.ones_like(loss))


def total_loss(
    config: Config,
    model: model_lib.Mmllm,
    params: Params,
    batch: Any,
    bank_teacher: Float[Array, "v w"],
    key: jax.Array,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The weighted sum of `cfg.loss` and each loss by name."""
    dropout_key, name_key, bank_key, spoken_key = jax.random.split(key, 4)
    prefix, embedding = _apply(
        model,
        params["model"],
        batch["cells"].astype(jnp.float32),
        train=True,
        rngs={"dropout": dropout_key},
        method="encode_cells",
    )
    losses = decoder_losses(config, model, params["model"], prefix, batch)
    label = batch["label"]
    if config.mix.names:
        seen = _apply(
            model,
            params["model"],
            batch["name_cells"].astype(jnp.float32),
            train=True,
            rngs={"dropout": name_key},
            method="embed_cells",
        )
        prefix = _apply(model, params["model"], seen, method="name_prefix")
        loss = next_token(model, params["model"], prefix, batch, "name_")
        losses["name"] = _mean(loss, batch["name_target_weight"])
        embedding = jnp.concatenate([embedding, seen])
        label = jnp.concatenate([label, batch["name_label"]])
    if config.mix.spoken:
        losses["spoken"] = spoken_loss(config, model, params, batch, bank_teacher, spoken_key)
    losses |= retrieval_losses(
        config, model, params, embedding, label, batch, bank_teacher, bank_key
    )
    losses["lines"] = line_loss(model, params["model"], batch)
    weighted = (getattr(config.loss, name) * value for name, value in losses.items())
    total = sum(weighted, jnp.float32(0))
    return total, losses
