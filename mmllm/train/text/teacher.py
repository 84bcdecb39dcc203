"""The sentence-embedding teacher, all-MiniLM-L6-v2 in plain JAX: text -> a unit vector of 384.

The retrieval loss in `train.losses` pulls the model's own text tower to these vectors. Only
training needs it: `data.pretrained` reads the weights, and they never ship.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from mmllm.data import pretrained

LAYERS = 6
HEADS = 12
LAYER_NORM_EPSILON = 1e-12
MAX_TOKENS = 256
# Padded lengths: one compiled program each, close together where most captions and glosses lie.
LENGTHS = (8, 16, 24, 32, 48, 96, 256)


def convert_weights(weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Turns BERT tensors (dense kernels output x input) into the tree `encode` takes.

    Raises:
      ValueError: a tensor is missing.
    """

    def take(name: str) -> np.ndarray:
        if name not in weights:
            raise ValueError(f"weights lack {name!r}; expected the tensors of all-MiniLM-L6-v2.")
        return np.asarray(weights[name], np.float32)

    def dense(*names: str) -> dict[str, Array]:
        kernels = [take(f"{name}.weight").T for name in names]
        biases = [take(f"{name}.bias") for name in names]
        return {
            "kernel": jnp.asarray(np.concatenate(kernels, axis=1)),
            "bias": jnp.asarray(np.concatenate(biases)),
        }

    def norm(name: str) -> dict[str, Array]:
        return {
            "scale": jnp.asarray(take(f"{name}.weight")),
            "bias": jnp.asarray(take(f"{name}.bias")),
        }

    params: dict[str, Any] = {
        "tokens": jnp.asarray(take("embeddings.word_embeddings.weight")),
        # every text is segment 0, so its embedding joins the positions
        "positions": jnp.asarray(
            take("embeddings.position_embeddings.weight")
            + take("embeddings.token_type_embeddings.weight")[:1]
        ),
        "norm": norm("embeddings.LayerNorm"),
    }
    for index in range(LAYERS):
        layer = f"encoder.layer.{index}"
        heads = f"{layer}.attention.self"
        params[f"layer_{index}"] = {
            "qkv": dense(f"{heads}.query", f"{heads}.key", f"{heads}.value"),
            "out": dense(f"{layer}.attention.output.dense"),
            "attention_norm": norm(f"{layer}.attention.output.LayerNorm"),
            "up": dense(f"{layer}.intermediate.dense"),
            "down": dense(f"{layer}.output.dense"),
            "mlp_norm": norm(f"{layer}.output.LayerNorm"),
        }
    return params


def _dense(params: Mapping[str, Array], x: Float[Array, "b t i"]) -> Float[Array, "b t o"]:
    return x @ params["kernel"] + params["bias"][None, None, :]


def _layer_norm(params: Mapping[str, Array], x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    centred = x - x.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    scale, bias = params["scale"][None, None, :], params["bias"][None, None, :]
    return centred / jnp.sqrt(variance + LAYER_NORM_EPSILON) * scale + bias


def _attention(
    params: Mapping[str, Any], x: Float[Array, "b t d"], mask: Bool[Array, "b t"]
) -> Float[Array, "b t d"]:
    batch, length, width = x.shape
    qkv = _dense(params["qkv"], x).reshape(batch, length, 3, HEADS, width // HEADS)
    query, key, value = qkv.transpose(2, 0, 3, 1, 4)
    scores = jnp.einsum("bhqk,bhtk->bhqt", query, key) / math.sqrt(width // HEADS)
    scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(scores.dtype).min)
    mixed = jnp.einsum("bhqt,bhtk->bhqk", jax.nn.softmax(scores, axis=-1), value)
    return _dense(params["out"], mixed.transpose(0, 2, 1, 3).reshape(batch, length, width))


def encode(
    params: Mapping[str, Any], ids: Int32[Array, "b t"], mask: Bool[Array, "b t"]
) -> Float[Array, "b d"]:
    """Embeds padded token ids: BERT, the mean over the tokens of the mask, unit length.

    Source: Reimers & Gurevych 2019, Sentence-BERT; pooling from the package's modules.json.
    """
    x = params["tokens"][ids] + params["positions"][None, : ids.shape[1]]
    x = _layer_norm(params["norm"], x)
    for index in range(LAYERS):
        layer = params[f"layer_{index}"]
        x = _layer_norm(layer["attention_norm"], x + _attention(layer, x, mask))
        hidden = jax.nn.gelu(_dense(layer["up"], x), approximate=False)
        x = _layer_norm(layer["mlp_norm"], x + _dense(layer["down"], hidden))
    weight = mask[:, :, None].astype(x.dtype)
    pooled = (x * weight).sum(1) / weight.sum(1)
    return pooled / jnp.maximum(jnp.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)


class SentenceTeacher:
    """Embeds lists of English texts; meaning the same lies close.

    Args:
      params: the tree of `convert_weights`.
      tokenizer: a `tokenizers.Tokenizer` for BERT's lower-case WordPiece vocabulary.
    """

    def __init__(self, params: Mapping[str, Any], tokenizer: Any):
        self._params = params
        self.width: int = params["norm"]["scale"].shape[0]
        self._tokenizer = tokenizer
        # Whatever the published file pads to: each batch is padded to its own longest row.
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._encode = jax.jit(encode)

    @classmethod
    def load(cls) -> "SentenceTeacher":
        """Reads the pinned package, downloading it first where needed.

        Raises:
          ImportError: the training extra is not installed.
          ValueError: the package's files are not the pinned ones.
        """
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ImportError("the sentence teacher needs `pip install mmllm[train]`.") from error
        tokenizer = Tokenizer.from_str(pretrained.minilm_tokenizer())
        return cls(convert_weights(pretrained.minilm_weights()), tokenizer)

    def embed(self, texts: Sequence[str], batch: int = 128) -> Float[np.ndarray, "b d"]:
        """Embeds texts, sorted by length into padded batches and returned in the order given.

        Args:
          texts: any number of texts; what goes beyond 256 tokens is cut, as in the published model.
          batch: texts a step.

        Returns:
          float32 unit vectors, d = 384 for the published weights.

        Raises:
          TypeError: a single string instead of a list, or an element that is not a string.
          ValueError: batch below 1.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError("texts must be a list of strings.")
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}.")
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        vectors = np.zeros((len(tokens), self.width), np.float32)
        for rows, length in _batches([len(ids) for ids in tokens], batch):
            ids = np.zeros((batch, length), np.int32)
            mask = np.zeros((batch, length), bool)
            mask[len(rows) :, 0] = True  # rows that only fill the batch must not divide by zero
            for slot, row in enumerate(rows):
                ids[slot, : len(tokens[row])] = tokens[row]
                mask[slot, : len(tokens[row])] = True
            vectors[rows] = np.asarray(self._encode(self._params, ids, mask))[: len(rows)]
        return vectors


def _batches(lengths: list[int], batch: int) -> list[tuple[list[int], int]]:
    """Cuts the rows, shortest first, into batches; each is padded to fit its longest row."""
    rows = sorted(range(len(lengths)), key=lengths.__getitem__)
    groups = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    return [
        (group, next(size for size in LENGTHS if size >= lengths[group[-1]])) for group in groups
    ]
