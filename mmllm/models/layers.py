"""The linear layers, norms and embeddings every part of the model is made of.

All matrices of the model pass through `QuantDense` and `QuantEmbed`. A weight that is to lie on a
grid arrives there already (`quant.tree`). Inputs are rounded here as a runtime would round them,
where `activations` is "int8", each row by its own range, or "int8_static", all by one range, the
parameter `amax`, which `train.calibrate` finds.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmllm.common.types import Array, Float, Int
from mmllm.quant import fake_quant

NORM_EPSILON = 1e-6


AMAX = "amax"


def _rounded(
    x: Float[Array, "*b i"], activations: str, amax: Float[Array, ""] | None
) -> Float[Array, "*b i"]:
    if amax is not None:
        return fake_quant.fake_quant_tensor(x, amax)
    return fake_quant.fake_quant_rows(x) if activations == "int8" else x


def _range(module: nn.Module, activations: str) -> Float[Array, ""] | None:
    """The one range of a layer's inputs, a parameter, where they are rounded by one."""
    if activations != "int8_static":
        return None
    return module.param(AMAX, nn.initializers.ones, ())


class QuantDense(nn.Module):
    """y = x W (+ b), with W of shape (inputs, features)."""

    features: int
    activations: str = "float"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        # One flat matrix: XLA's CPU gradients of a product with several batch axes are slower.
        x = _rounded(x, self.activations, _range(self, self.activations))
        y = jnp.dot(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], self.features)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + jnp.reshape(bias, (1,) * (y.ndim - 1) + (-1,))
        return y


class QuantEmbed(nn.Module):
    """One table for token embeddings and, transposed, for the vocabulary logits.

    `exported` looks tokens up by a product with one-hot rows, which converters know as a lookup.
    """

    vocab_size: int
    width: int
    activations: str = "float"
    exported: bool = False

    def setup(self) -> None:
        self.table = self.param(
            "table", nn.initializers.normal(0.02), (self.vocab_size, self.width)
        )
        self.amax = _range(self, self.activations)

    def __call__(self, ids: Int[Array, "*b"]) -> Float[Array, "*b d"]:
        if self.exported:
            return jnp.dot(jax.nn.one_hot(ids, self.vocab_size), self.table)
        return jnp.take(self.table, ids, axis=0)

    def logits(self, x: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
        return jnp.dot(_rounded(x, self.activations, self.amax), self.table.T)


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
    """Scale and shift per channel; training starts it at the statistics of the backbone's features."""

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y x c"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return x * scale[None, None, None] + bias[None, None, None]


class Mlp(nn.Module):
    """Two linear layers around a tanh-GELU."""

    hidden: int
    features: int
    activations: str = "float"

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        up = QuantDense(self.hidden, self.activations, name="up")
        hidden = nn.gelu(up(x), approximate=True)
        return QuantDense(self.features, self.activations, name="down")(hidden)


def unit_norm(x: Float[Array, "*b e"]) -> Float[Array, "*b e"]:
    """Divides by the Euclidean norm of the last axis."""
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(square + 1e-12)
