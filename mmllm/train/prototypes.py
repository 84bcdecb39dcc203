"""The vectors that pictures are classified over: one for each unique English training caption.

A vector is a linear map of the caption's sentence embedding plus a free residual that is dropped at
random, so that the map alone must carry meaning to captions never seen. The text tower learns to
reproduce the vectors from text; the prototypes itself is a part of training only.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmllm.common.types import Array, Float, Params
from mmllm.models import layers

TEACHER_WIDTH = 384
INITIAL_SCALE = 16.0
MAX_SCALE = 100.0


class TextPrototypes(nn.Module):
    """Vectors of all captions, the map to them, and the temperature they are compared at."""

    captions: int
    embed_dim: int

    def setup(self) -> None:
        self.project = layers.QuantDense(self.embed_dim, use_bias=False)
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
        """Inverse temperature of the softmax over the prototypes."""
        return jnp.minimum(jnp.exp(self.log_scale), MAX_SCALE)


def apply(params: Params, *arguments: Any, **options: Any) -> Any:
    """A method of the prototypes that has these parameters."""
    return TextPrototypes(*params["residual"].shape).apply(
        {"params": params}, *arguments, **options
    )


def vectors(params: Params, teacher: Float[Array, "v w"]) -> Float[Array, "v e"]:
    """Unit vectors of all captions, residuals included."""
    return apply(params, teacher, jnp.ones(teacher.shape[0]))
