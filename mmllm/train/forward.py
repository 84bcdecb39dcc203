"""What a step computes from a batch before any loss: looked at by `losses`, and by `distill` twice.

Student and teacher run through the same function with the same key, so that both see the same
dropped channels and the same noise.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mmllm.common.config import Config
from mmllm.common.types import Array, Float, Params
from mmllm.models import layers
from mmllm.models import mmllm as model_lib
from mmllm.train.text import prototypes as prototypes_lib

Outputs = dict[str, Array]
"""By name, each only where the batch has rows of its task:

logits, name_logits, spoken_logits (t, v): at the targets of the pictures' texts, of the pictures of
  `batch.names`, and of the names without a picture.
embedding (b, e): unit image embeddings, those of `batch.names` last.
texts (b, e): unit text embeddings.
lines (b, n, v): CTC logits.
"""


def run(
    config: Config,
    model: model_lib.Mmllm,
    params: Params,
    batch: Any,
    prototype_sentences: Float[Array, "v w"],
    key: jax.Array,
) -> Outputs:
    """Runs every part of the model that a batch has rows for, in training mode.

    Args:
      config: the experiment.
      model: built from it.
      params: {"model", "prototypes"}.
      batch: of `data.pipeline`.
      prototype_sentences: sentence embeddings of all captions, unless the batch carries its own.
      key: of the step.
    """
    dropout_key, name_key, spoken_key = jax.random.split(key, 3)

    def apply(method: str, *arguments: Any, **options: Any) -> Any:
        return model.apply({"params": params["model"]}, *arguments, **options, method=method)

    def said(prefix: jax.Array, kind: str) -> Float[Array, "t v"]:
        texts = batch[f"{kind}ids"], batch[f"{kind}start"]
        hidden = apply("decode_hidden", prefix, *texts)
        # Logits at the targets alone: over all positions they would be the largest array of a step.
        at_targets = jnp.take(
            hidden.reshape(-1, hidden.shape[-1]), batch[f"{kind}position"], axis=0
        )
        return apply("logits", at_targets)

    # A task that the config leaves out has no key in the batch: no part of the model runs on
    # zero rows.
    outputs: Outputs = {}
    # Joined below in the order of the labels in `losses.retrieval_losses`.
    embeddings = []
    if "features" in batch:
        features = batch["features"].astype(jnp.float32)
        prefix, seen = apply("encode_features", features, train=True, rngs={"dropout": dropout_key})
        outputs["logits"] = said(prefix, "")
        embeddings.append(seen)
    if "name_features" in batch:
        features = batch["name_features"].astype(jnp.float32)
        seen = apply("embed_features", features, train=True, rngs={"dropout": name_key})
        outputs["name_logits"] = said(apply("name_prefix", seen), "name_")
        embeddings.append(seen)
    if "spoken_ids" in batch:
        captions = prototypes_lib.of_batch(batch, prototype_sentences)
        vectors = jax.lax.stop_gradient(prototypes_lib.vectors(params["prototypes"], *captions))
        vectors = jnp.take(vectors, batch["spoken_label"], axis=0)
        heard = _noisy(vectors, config.loss.spoken_noise, spoken_key)
        outputs["spoken_logits"] = said(apply("name_prefix", heard), "spoken_")
    if embeddings:
        outputs["embedding"] = jnp.concatenate(embeddings)
    if "texts" in batch:
        outputs["texts"] = apply("embed_text", batch["texts"])
    if "lines" in batch:
        outputs["lines"] = apply("read_lines", batch["lines"].astype(jnp.float32))
    return outputs


def _noisy(vectors: Float[Array, "b e"], most: float, key: jax.Array) -> Float[Array, "b e"]:
    """Unit vectors with noise of a random length up to `most`, and unit length again.

    Pictures only come near their name's vector. Source: CapDec (Nukrai et al., 2022), with noise of
    one fixed length.
    """
    direction_key, length_key = jax.random.split(key)
    noise = jax.random.normal(direction_key, vectors.shape) * vectors.shape[1] ** -0.5
    length = jax.random.uniform(length_key, (len(vectors), 1)) * most
    return layers.unit_norm(vectors + length * noise)
