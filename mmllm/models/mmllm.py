"""The assembled model: one shared encoder, a prefix decoder, a text tower, retrieval and CTC heads.

`build(config)` returns a linen module; its methods are the signatures of the exported file.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmllm.common.config import ModelConfig
from mmllm.common.types import Array, Float, Int, Params
from mmllm.models import decoder as decoder_lib
from mmllm.models import efficientnet_lite0, heads, layers, vit
from mmllm.quant.rules import Rule

PAD_ID = 0


class Mmllm(nn.Module):
    """A small vision-language model. Pictures and lines are floats in 0..255.

    Attributes:
      config: its sizes.
      rules: how its layers round their inputs, by the paths of their weights; none: all float.
      exported: builds the forms that converters know: the same numbers, slower in JAX on a CPU.
    """

    config: ModelConfig
    rules: tuple[Rule, ...] = ()
    exported: bool = False

    def setup(self) -> None:
        c = self.config
        # The patch backbone has no parameters: the picture tokens project its patches.
        if c.backbone == "efficientnet_lite0":
            self.backbone = efficientnet_lite0.EfficientNetLite0(
                level=c.level,
                depthwise="conv" if self.exported else "shift",
                rules=self.rules,
            )
        self.feature_affine = layers.Affine()
        self.picture_tokens = vit.PictureTokens(c, self.rules)
        self.line_tokens = vit.LineTokens(c, self.rules)
        self.encoder = vit.Encoder(c, self.rules)
        self.image_embedding = heads.ImageEmbedding(c, self.rules)
        self.embedding_token = layers.QuantDense(c.width, self.rules)
        self.embed = layers.QuantEmbed(c.vocab_size, c.width, self.rules, self.exported)
        self.decoder = decoder_lib.Decoder(c, self.rules)
        self.text_tower = heads.TextTower(c, self.rules)
        self.line_reader = heads.LineReader(c, self.rules)

    def backbone_features(self, pixels: Float[Array, "b y x 3"]) -> Float[Array, "b i j c"]:
        """Pixels -> backbone features: the part that training caches."""
        if self.config.backbone == "efficientnet_lite0":
            return self.backbone(pixels)
        return vit.patches((pixels - vit.PIXEL_CENTRE) / vit.PIXEL_SPREAD, self.config.patch)

    def encode_features(
        self, features: Float[Array, "b i j c"], *, train: bool = False
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b e"]]:
        """Backbone features -> (prefix tokens for the decoder, unit image embedding)."""
        features = self._standardise(features, train)
        encoded = self.encoder(self.picture_tokens(features))
        embedding = self.image_embedding(features)
        # The embedding is a token of its own: what retrieval learns, the decoder may use.
        return jnp.concatenate([encoded, self.name_prefix(embedding)], axis=1), embedding

    def embed_features(
        self, features: Float[Array, "b i j c"], *, train: bool = False
    ) -> Float[Array, "b e"]:
        """Backbone features -> unit image embedding; without the encoder, so next to free."""
        return self.image_embedding(self._standardise(features, train))

    def name_prefix(self, embedding: Float[Array, "b e"]) -> Float[Array, "b 1 d"]:
        """An embedding as a prefix of one token: enough to name what it shows."""
        # A unit vector's numbers are small; so scaled they deviate by about 1, as normed inputs do.
        return self.embedding_token(embedding * self.config.embed_dim**0.5)[:, None]

    def _standardise(
        self, features: Float[Array, "b i j c"], train: bool
    ) -> Float[Array, "b i j c"]:
        """Scales the backbone's channels, and in training drops some of each picture."""
        features = self.feature_affine(features)
        if not train or self.config.feature_dropout == 0:
            return features
        keep_rate = 1.0 - self.config.feature_dropout
        # Whole channels, and at the input: dropout in every block takes 40 % of a step on a CPU.
        shape = (features.shape[0], 1, 1, features.shape[-1])
        mask = jax.random.bernoulli(self.make_rng("dropout"), keep_rate, shape)
        return features * (mask / keep_rate)

    def encode_image(self, pixels: Float[Array, "b y x 3"]) -> Float[Array, "b n d"]:
        """Pixels -> prefix tokens."""
        return self.encode_features(self.backbone_features(pixels))[0]

    def embed_image(self, pixels: Float[Array, "b y x 3"]) -> Float[Array, "b e"]:
        """Pixels -> unit embedding."""
        return self.embed_features(self.backbone_features(pixels))

    def embed_text(self, ids: Int[Array, "b t"]) -> Float[Array, "b e"]:
        """Token ids, `[<emb>] text <eos>` padded with 0 -> unit embedding."""
        return self.text_tower(self.embed(ids), ids != PAD_ID)

    def read_lines(self, lines: Float[Array, "b y x"]) -> Float[Array, "b n v"]:
        """Grey text lines -> CTC logits by column; class 0 is the blank, i is charset[i - 1]."""
        return self.line_reader(self.encoder(self.line_tokens(lines)))

    def decode_hidden(
        self,
        prefix: Float[Array, "b n d"],
        ids: Int[Array, "b t"],
        start: Int[Array, "b t"] | None = None,
    ) -> Float[Array, "b t d"]:
        """Hidden states of all text positions: training takes logits only where there is a loss.

        `start` parts the texts that share a row, see `Decoder`.
        """
        return self.decoder(prefix, self.embed(ids), start)[0]

    def logits(self, hidden: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
        """Hidden states -> vocabulary logits, by the tied embedding."""
        return self.embed.logits(hidden)

    def prefill(
        self, prefix: Float[Array, "b n d"], ids: Int[Array, "b t"]
    ) -> tuple[Float[Array, "b t v"], decoder_lib.Cache]:
        """Prompt -> logits at every position and a cache with room for `max_text` tokens."""
        hidden, cache = self.decoder(prefix, self.embed(ids))
        return self.embed.logits(hidden), self.decoder.grow(cache, ids.shape[1])

    def decode_step(
        self, ids: Int[Array, "b"], position: Int[Array, "*b"], cache: decoder_lib.Cache
    ) -> tuple[Float[Array, "b v"], decoder_lib.Cache]:
        """One token a row at sequence position `position`, prefix included; a scalar serves all."""
        position = jnp.broadcast_to(position, ids.shape)
        hidden, cache = self.decoder.step(self.embed(ids)[:, None], position, cache)
        return self.embed.logits(hidden[:, 0]), cache

    def everything(self, pixels: Any, lines: Any, ids: Any) -> None:
        """Touches every parameter, for `init`."""
        prefix, _ = self.encode_features(self.backbone_features(pixels))
        self.decode_hidden(prefix, ids)
        self.embed_text(ids)
        self.read_lines(lines)


def build(config: ModelConfig, rules: Sequence[Rule] = (), *, exported: bool = False) -> Mmllm:
    """The model of a config; parameters are a plain tree made by `init_params`.

    Args:
      config: its sizes.
      rules: how layers round their inputs (`quant.rules`); without them it is the float model.
      exported: see `Mmllm`.
    """
    return Mmllm(config, tuple(rules), exported)  # a tuple, for jit hashes modules


@functools.partial(jax.jit, static_argnames=("config", "rules"))
def init_params(config: ModelConfig, key: jax.Array, rules: tuple[Rule, ...] = ()) -> Params:
    """Fresh parameters; the pretrained backbone's place holds random values until they are loaded.

    Compiled, so that the forward pass that names them is not run. Rules with static inputs add the
    ranges of those.
    """
    model = build(config, rules)
    pixels = jnp.zeros((1, config.image_side, config.image_side, 3))
    lines = jnp.zeros((1, config.line_height, config.line_width))
    ids = jnp.ones((1, 2), jnp.int32)
    return model.init({"params": key}, pixels, lines, ids, method="everything")["params"]
