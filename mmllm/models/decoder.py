"""The causal text decoder with the image tokens as prefix and a KV cache of plain arrays.

The prefix is seen by every position; text sees the prefix and the text before it. In training
several texts about one picture share a row and its prefix, unseen by each other. A cache is a
tuple with one `KeyValue` a block, each (b, g, prefix + max_text, k).
"""

import flax.linen as nn
import jax.numpy as jnp

from mmllm.common.config import ModelConfig
from mmllm.common.types import Array, Float, Int
from mmllm.models import attention, layers
from mmllm.quant.rules import Rule

Cache = tuple[attention.KeyValue, ...]


class Decoder(nn.Module):
    """Transformer blocks over [image prefix, text]."""

    config: ModelConfig
    rules: tuple[Rule, ...] = ()

    def setup(self) -> None:
        self.block = [
            attention.Block(self.config, self.rules) for _ in range(self.config.decoder_blocks)
        ]
        self.norm = layers.Norm()

    def __call__(
        self,
        prefix: Float[Array, "b n d"],
        text: Float[Array, "b t d"],
        start: Int[Array, "b t"] | None = None,
    ) -> tuple[Float[Array, "b t d"], Cache]:
        """Hidden states of the text positions, and every block's keys and values.

        `start` is the column where each token's text begins; without it a row is one text.
        """
        x = jnp.concatenate([prefix, text], axis=1)
        n, s = prefix.shape[1], x.shape[1]
        column, row = jnp.arange(s)[None, :], jnp.arange(s)[:, None]
        # The prefix is no text: it sees itself whole.
        mask = ((column <= row) | (column < n))[None, None]
        position = jnp.broadcast_to(jnp.arange(s)[None], x.shape[:2])
        if start is not None:
            # Texts start at n or later: the prefix, padded with 0, is none of them.
            text_of = jnp.pad(start + n, ((0, 0), (n, 0)))
            same = text_of[:, :, None] == text_of[:, None, :]
            mask = mask & (same | (column < n)[None])[:, None]
            # Each text has the positions it would have alone, behind the prefix.
            position = position - jnp.pad(start, ((0, 0), (n, 0)))
        pairs = []
        for block in self.block:
            x, pair = block(x, mask, position)
            pairs.append(pair)
        # The prefix is there to be attended to: nothing is predicted from it.
        return self.norm(x[:, n:]), tuple(pairs)

    def grow(self, cache: Cache, text_length: int) -> Cache:
        """Pads a prefill's cache with empty rows so that it holds `max_text` text tokens."""
        room = self.config.max_text - text_length
        if room < 0:
            raise ValueError(
                f"ids must hold at most max_text = {self.config.max_text} tokens, got {text_length}"
            )
        # One size from the first step on: an exported graph has no shapes that grow.
        pad = ((0, 0), (0, 0), (0, room), (0, 0))
        return tuple(
            attention.KeyValue(jnp.pad(pair.key, pad), jnp.pad(pair.value, pad)) for pair in cache
        )

    def step(
        self, text: Float[Array, "b 1 d"], position: Int[Array, "b"], cache: Cache
    ) -> tuple[Float[Array, "b 1 d"], Cache]:
        """One more token a row, at sequence position `position` (prefix included)."""
        pairs = []
        for block, pair in zip(self.block, cache, strict=True):
            text, grown = block.step(text, position, pair)
            pairs.append(grown)
        return self.norm(text), tuple(pairs)
