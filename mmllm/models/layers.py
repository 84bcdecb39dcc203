"""The linear layers, norms and embeddings every part of the model is made of.

All weights of the model pass through `Dense` and `Embed`, so that quantization has one place to
act.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmllm.common.types import Array, Float, Int

NORM_EPSILON = 1e-6


class Dense(nn.Module):
    """y = x W (+ b), with W of shape (inputs, features)."""

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        # One flat matrix: XLA's CPU gradients of a product with several batch axes are slower.
        y = jnp.dot(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], self.features)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + jnp.reshape(bias, (1,) * (y.ndim - 1) + (-1,))
        return y


class Embed(nn.Module):
    """One table for token embeddings and, transposed, for the vocabulary logits."""

    vocab_size: int
    width: int

    def setup(self) -> None:
        self.table = self.param(
            "table", nn.initializers.normal(0.02), (self.vocab_size, self.width)
        )

    def __call__(self, ids: Int[Array, "*b"]) -> Float[Array, "*b d"]:
        return jnp.take(self.table, ids, axis=0)

    def logits(self, x: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
        return jnp.dot(x, self.table.T)


class Norm(nn.Module):
    """Layer norm with a learned scale and no bias."""

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        unit = centred * jax.lax.rsqrt(variance + NORM_EPSILON)
        return unit * jnp.reshape(scale, (1,) * (x.ndim - 1) + (-1,))


class Affine(nn.Module):
    """Scale and shift per channel; training starts it at the statistics of the stem's features."""

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y x c"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return x * scale[None, None, None] + bias[None, None, None]


class Mlp(nn.Module):
    """Two linear layers around a tanh-GELU."""

    hidden: int
    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        hidden = nn.gelu(Dense(self.hidden, name="up")(x), approximate=True)
        return Dense(self.features, name="down")(hidden)


def unit_norm(x: Float[Array, "*b e"]) -> Float[Array, "*b e"]:
    """Divides by the Euclidean norm of the last axis."""
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(square + 1e-12)
