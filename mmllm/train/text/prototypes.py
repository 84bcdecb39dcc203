"""The vectors that pictures are classified over: one for each unique English training caption.

A vector is a linear map of the caption's sentence embedding plus a free residual that is dropped at
random, so that the map alone must carry meaning to captions never seen. The text tower learns to
reproduce the vectors from text; the prototypes themselves are a part of training only.

At scale: only the first `prototypes.max_residuals` captions have a residual, and with
`prototypes.negatives` a step of `multitask` sees no more captions than its batch carries. 600,000
captions then take there, with 384 values a sentence, 256 a vector, 16,384 residuals, 8,192
negatives and nano's batch:
  host    461 MB  sentences in float16, memory-mapped: 600,000 x 384 x 2 bytes
  device   50 MB  residuals with both moments of Adam: 3 x 16,384 x 256 x 4 bytes
           13 MB  sentences of a step in float32: 8,550 x 384 x 4 bytes
            9 MB  vectors of a step: 8,550 x 256 x 4 bytes
and without both bounds 922 MB of sentences and 614 MB of vectors a step, and 1.8 GB of residuals.
The other phases hold all captions at once: `prepare` embeds them through about 3.7 GB of float32,
`align_text` compares with 922 MB of sentences and 614 MB of vectors, and `tune_backbone` classifies
a batch of 64 over all of them: 154 MB of logits, twice with their gradients.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmllm.common.config import Config
from mmllm.common.types import Array, Float, Int, Params
from mmllm.models import layers

TEACHER_WIDTH = 384
INITIAL_SCALE = 16.0
MAX_SCALE = 100.0


class TextPrototypes(nn.Module):
    """The map from sentences to vectors, free residuals, and the temperature of comparisons."""

    residuals: int
    embed_dim: int

    def setup(self) -> None:
        self.project = layers.QuantDense(self.embed_dim, use_bias=False)
        # None at all where no caption has one: a checkpoint cannot hold an array of no rows.
        if self.residuals:
            self.residual = self.param(
                "residual",
                nn.initializers.normal(self.embed_dim**-0.5),
                (self.residuals, self.embed_dim),
            )
        self.log_scale = self.param("log_scale", lambda _: jnp.log(jnp.float32(INITIAL_SCALE)))

    def __call__(
        self,
        teacher: Float[Array, "v w"],
        keep: Float[Array, "v"],
        place: Int[Array, "v"] | None = None,
    ) -> Float[Array, "v e"]:
        """Unit vectors of captions.

        Args:
          teacher: their sentence embeddings.
          keep: 1 where the residual takes part.
          place: of each among all captions, below 0 for padding; None: these are all, in order.
        """
        residual = self._residuals_of(len(teacher), place)
        return layers.unit_norm(self.words(teacher) + 0.5 * residual * keep[:, None])

    def _residuals_of(self, captions: int, place: Int[Array, "v"] | None) -> Float[Array, "v e"]:
        """The free vector of each caption; 0 of those above the bound, which are the map alone."""
        if not self.residuals:
            return jnp.zeros((captions, self.embed_dim))
        if place is None:
            return jnp.pad(self.residual, ((0, captions - self.residuals), (0, 0)))
        has = (place >= 0) & (place < self.residuals)
        rows = jnp.take(self.residual, jnp.clip(place, 0, self.residuals - 1), axis=0)
        return rows * has[:, None]

    def touch(self, teacher: Float[Array, "v w"], keep: Float[Array, "v"]) -> None:
        """Touches every parameter, for `init`."""
        self(teacher, keep)
        self.scale()

    def words(self, teacher: Float[Array, "b w"]) -> Float[Array, "b e"]:
        """Sentence embeddings -> unit vectors of the shared space."""
        return layers.unit_norm(self.project(teacher))

    def scale(self) -> Float[Array, ""]:
        """Inverse temperature of the softmax over the prototypes."""
        return jnp.minimum(jnp.exp(self.log_scale), MAX_SCALE)


def init(config: Config, captions: int, key: jax.Array) -> Params:
    """Fresh parameters for that many captions; above the bound a caption has no residual."""
    residuals = min(captions, config.prototypes.max_residuals)
    fresh = TextPrototypes(residuals, config.model.embed_dim).init(
        key, jnp.zeros((residuals, TEACHER_WIDTH)), jnp.ones(residuals), method="touch"
    )
    return dict(fresh["params"])


def apply(params: Params, *arguments: Any, **options: Any) -> Any:
    """A method of the prototypes that have these parameters."""
    residuals = len(params["residual"]) if "residual" in params else 0
    width = params["project"]["kernel"].shape[1]
    return TextPrototypes(residuals, width).apply({"params": params}, *arguments, **options)


def vectors(
    params: Params, teacher: Float[Array, "v w"], place: Int[Array, "v"] | None = None
) -> Float[Array, "v e"]:
    """Unit vectors of captions, residuals included."""
    return apply(params, teacher, jnp.ones(teacher.shape[0]), place)


def on_device(config: Config, sentences: np.ndarray) -> np.ndarray:
    """The sentence embeddings that stay on the device: all, or none where batches carry theirs."""
    # Else they would fill the device for nothing: no step compares with all of them.
    count = 0 if config.prototypes.negatives else len(sentences)
    return np.asarray(sentences[:count], np.float32)


def of_batch(
    batch: Any, sentences: Float[Array, "v w"]
) -> tuple[Float[Array, "c w"], Int[Array, "c"] | None]:
    """The captions that a step compares with: sentences, and places where they are not all."""
    if "prototype_place" not in batch:
        return sentences, None
    return batch["prototype_sentences"].astype(jnp.float32), batch["prototype_place"]
