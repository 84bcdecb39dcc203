"""Grouped-query attention with rotary positions, and the pre-norm transformer block around it.

The (batch, heads, sequence, head width) layout with materialised transposes is several times
faster on CPUs than (batch, sequence, heads, head width).
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmllm.common.config import ModelConfig
from mmllm.common.types import Array, Bool, Float, Int
from mmllm.models import layers
from mmllm.quant.rules import Rule

# Finite, so that a row that may see nothing (a text of padding) gives numbers and not NaN.
MASKED = -1e9
ROTARY_BASE = 10_000.0


class KeyValue(NamedTuple):
    """Keys and values of one block, (b, g, s, k)."""

    key: Float[Array, "b g s k"]
    value: Float[Array, "b g s k"]


def rotate(x: Float[Array, "b h s k"], position: Int[Array, "b s"]) -> Float[Array, "b h s k"]:
    """Rotary position embedding, half-split pairs.

    Source: RoFormer (Su et al., 2021), equation 34; pairs (i, i + k/2) as in GPT-NeoX.
    """
    # Halves rather than neighbours: slices and one join, where neighbours need a transpose.
    half = x.shape[-1] // 2
    frequency = ROTARY_BASE ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = position[:, None, :, None].astype(jnp.float32) * frequency[None, None, None, :]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


class Attention(nn.Module):
    """Multi-head attention in which `heads` queries share `kv_heads` keys and values."""

    config: ModelConfig
    rules: tuple[Rule, ...] = ()

    def setup(self) -> None:
        c = self.config
        self.query = layers.QuantDense(c.heads * c.head_dim, self.rules, use_bias=False)
        self.key = layers.QuantDense(c.kv_heads * c.head_dim, self.rules, use_bias=False)
        self.value = layers.QuantDense(c.kv_heads * c.head_dim, self.rules, use_bias=False)
        self.out = layers.QuantDense(c.width, self.rules, use_bias=False)

    def _split(self, x: Float[Array, "b s i"], heads: int) -> Float[Array, "b h s k"]:
        b, s, _ = x.shape
        return x.reshape(b, s, heads, self.config.head_dim).transpose(0, 2, 1, 3)

    def project(
        self, x: Float[Array, "b s d"], position: Int[Array, "b s"] | None
    ) -> tuple[Float[Array, "b h s k"], KeyValue]:
        """Queries, keys and values, rotated where positions are given."""
        query = self._split(self.query(x), self.config.heads)
        key = self._split(self.key(x), self.config.kv_heads)
        value = self._split(self.value(x), self.config.kv_heads)
        # None in the encoder, whose tokens have learned positions (`vit.Positions`). Keys are
        # rotated before they are cached: a later step rotates nothing but its own.
        if position is not None:
            query, key = rotate(query, position), rotate(key, position)
        return query, KeyValue(key, value)

    def attend(
        self,
        query: Float[Array, "b h q k"],
        pair: KeyValue,
        mask: Bool[Array, "#b 1 #q s"] | None,
    ) -> Float[Array, "b q d"]:
        """Softmax attention of the queries over keys and values; mask is True where allowed.

        The queries that share a key lie in one matrix, so that keys and values are never repeated.
        """
        b, h, q, k = query.shape
        g, s = pair.key.shape[1:3]
        shared = h // g * q  # queries by key; not -1, which no reshape can find for no rows
        score = jnp.matmul(query.reshape(b, g, shared, k), pair.key.transpose(0, 1, 3, 2))
        score = score.reshape(b, h, q, s) * self.config.head_dim**-0.5
        if mask is not None:
            # Added, not selected: mobile runtimes select slowly where shapes are broadcast.
            score = score + (1.0 - mask.astype(score.dtype)) * MASKED
        weight = jax.nn.softmax(score, axis=-1).reshape(b, g, shared, s)
        mixed = jnp.matmul(weight, pair.value).reshape(b, h, q, k)
        return self.out(mixed.transpose(0, 2, 1, 3).reshape(b, q, h * k))


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    config: ModelConfig
    rules: tuple[Rule, ...] = ()

    def setup(self) -> None:
        c = self.config
        self.attention_norm = layers.Norm()
        self.attention = Attention(c, self.rules)
        self.mlp_norm = layers.Norm()
        self.mlp = layers.Mlp(c.mlp_ratio * c.width, c.width, self.rules)

    def __call__(
        self,
        x: Float[Array, "b s d"],
        mask: Bool[Array, "#b 1 #s s"] | None = None,
        position: Int[Array, "b s"] | None = None,
    ) -> tuple[Float[Array, "b s d"], KeyValue]:
        """Whole sequence at once; also returns its keys and values for a cache."""
        query, pair = self.attention.project(self.attention_norm(x), position)
        x = x + self.attention.attend(query, pair, mask)
        return x + self.mlp(self.mlp_norm(x)), pair

    def step(
        self, x: Float[Array, "b 1 d"], position: Int[Array, "b"], cache: KeyValue
    ) -> tuple[Float[Array, "b 1 d"], KeyValue]:
        """One token per row at `position`; writes its row of the cache and attends up to it."""
        query, new = self.attention.project(self.attention_norm(x), position[:, None])
        rows = jnp.arange(cache.key.shape[2])[None, None, :, None]
        # A row of its own for each of the batch: products, where a slice could write but one.
        here = (rows == position[:, None, None, None]).astype(x.dtype)
        cache = KeyValue(
            cache.key * (1.0 - here) + new.key * here, cache.value * (1.0 - here) + new.value * here
        )
        # Rows further on hold nothing yet, or what a padded prompt left there.
        seen = jnp.arange(cache.key.shape[2])[None, None, None, :] <= position[:, None, None, None]
        x = x + self.attention.attend(query, cache, seen)
        return x + self.mlp(self.mlp_norm(x)), cache
