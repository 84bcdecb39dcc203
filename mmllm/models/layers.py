"""The linear layers, norms and embeddings every part of the model is made of.

All matrices of the model pass through `QuantDense` and `QuantEmbed`. A weight that is to lie on a
grid arrives there already (`quant.tree`). Inputs are rounded here as a runtime would round them,
where the first of `rules` that matches the layer's own path says so: per token, each row by its own
range, or per tensor, all by one range, the parameter `amax`, which `train.calibrate` finds.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmllm.common.types import Array, Float, Int
from mmllm.quant import fake_quant
from mmllm.quant import rules as rules_lib
from mmllm.quant.rules import Rule

NORM_EPSILON = 1e-6
AMAX = "amax"


def _rounded(
    x: Float[Array, "*b i"], inputs: str, amax: Float[Array, ""] | None
) -> Float[Array, "*b i"]:
    if amax is not None:
        return fake_quant.fake_quant_per_tensor(x, amax)
    return fake_quant.fake_quant_per_token(x) if inputs == rules_lib.INT8 else x


def _inputs(
    module: nn.Module, weight: str, rules: tuple[Rule, ...]
) -> tuple[str, Float[Array, ""] | None]:
    """How a layer rounds its inputs, by its weight's path; their range where it is per tensor."""
    inputs = rules_lib.inputs_of("/".join((*module.path, weight)), rules)
    per_tensor = inputs == rules_lib.INT8_STATIC
    # A parameter, so that checkpoints and bundles carry it like the weights it belongs to.
    return inputs, module.param(AMAX, nn.initializers.ones, ()) if per_tensor else None


class QuantDense(nn.Module):
    """y = x W (+ b), with W of shape (inputs, features)."""

    features: int
    rules: tuple[Rule, ...] = ()
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        # One flat matrix: XLA's CPU gradients of a product with several batch axes are slower.
        x = _rounded(x, *_inputs(self, "kernel", self.rules))
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
    rules: tuple[Rule, ...] = ()
    exported: bool = False

    def setup(self) -> None:
        self.table = self.param(
            "table", nn.initializers.normal(0.02), (self.vocab_size, self.width)
        )
        self.inputs, self.amax = _inputs(self, "table", self.rules)

    def __call__(self, ids: Int[Array, "*b"]) -> Float[Array, "*b d"]:
        # A lookup multiplies nothing: only `logits` rounds its inputs.
        if self.exported:
            return jnp.dot(jax.nn.one_hot(ids, self.vocab_size), self.table)
        return jnp.take(self.table, ids, axis=0)

    def logits(self, x: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
        return jnp.dot(_rounded(x, self.inputs, self.amax), self.table.T)


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
    """Scale and shift per channel; training starts it at the statistics of the features."""

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y x c"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return x * scale[None, None, None] + bias[None, None, None]


class Mlp(nn.Module):
    """Two linear layers around a tanh-GELU."""

    hidden: int
    features: int
    rules: tuple[Rule, ...] = ()

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        up = QuantDense(self.hidden, self.rules, name="up")
        # The tanh form is one operation of LiteRT, the exact one about sixty.
        hidden = nn.gelu(up(x), approximate=True)
        return QuantDense(self.features, self.rules, name="down")(hidden)


def unit_norm(x: Float[Array, "*b e"]) -> Float[Array, "*b e"]:
    """Divides by the Euclidean norm of the last axis."""
    # The added term keeps a vector of zeros at zero instead of NaN.
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(square + 1e-12)
