"""The image side: backbones that turn pixels into tokens, and the shared ViT encoder over them.

One set of blocks serves two fixed grids, a square one for pictures and a wide one for text lines;
positions are the sum of a row and a column embedding.
"""

import flax.linen as nn
import jax.numpy as jnp

from mmllm.common.config import ModelConfig
from mmllm.common.types import Array, Float
from mmllm.models import attention, layers
from mmllm.quant.rules import Rule

# Of the patch backbone, which has no statistics of its own: 0..255 -> -2..2.
PIXEL_CENTRE = 128.0
PIXEL_SPREAD = 64.0


def patches(pixels: Float[Array, "b y x 3"], side: int) -> Float[Array, "b i j c"]:
    """Cuts a picture into side x side patches, each flattened to side * side * 3 channels."""
    b, y, x, c = pixels.shape
    # In four axes, not six: Qualcomm's compiler refuses reshapes and transposes of rank 6.
    rows = pixels.reshape(b * (y // side), side, x // side, side * c).transpose(0, 2, 1, 3)
    return rows.reshape(b, y // side, x // side, side * side * c)


def merge_features(features: Float[Array, "b y x c"], side: int) -> Float[Array, "b i j m"]:
    """Joins side x side neighbours into one of side * side * c channels, with zeros at the edge."""
    # Fewer tokens in the prefix make each step of the decoder cheaper; 7 rows do not halve evenly.
    pad = -features.shape[1] % side
    features = jnp.pad(features, ((0, 0), (0, pad), (0, pad), (0, 0)))
    b, y, x, c = features.shape
    rows = features.reshape(b, y // side, side, x // side, side * c).transpose(0, 1, 3, 2, 4)
    return rows.reshape(b, y // side, x // side, side * side * c)


def even_contrast(lines: Float[Array, "b y x"]) -> Float[Array, "b y x"]:
    """Gives every line mean 0 and deviation 1, with the ink bright: contrast and polarity vanish.

    Ink is the smaller part of a line, so its side of the mean is the side of the third moment.
    """
    # Lines come dark on light, light on dark and faint: left as they are, training stays for long
    # on the plateau where CTC gives nothing but blanks.
    centred = lines - jnp.mean(lines, axis=(1, 2), keepdims=True)
    # The added 1 is one grey level: an empty line must not have its noise blown up.
    spread = jnp.sqrt(jnp.mean(jnp.square(centred), axis=(1, 2), keepdims=True) + 1.0)
    unit = centred / spread
    skew = jnp.mean(unit * unit * unit, axis=(1, 2), keepdims=True)
    return unit * jnp.where(skew < 0, -1.0, 1.0)


class Positions(nn.Module):
    """Learned row and column embeddings of a fixed grid, added together."""

    rows: int
    columns: int
    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        init = nn.initializers.normal(0.02)
        row = self.param("row", init, (self.rows, self.width))
        column = self.param("column", init, (self.columns, self.width))
        grid = x.reshape(-1, self.rows, self.columns, self.width)
        return (grid + row[None, :, None] + column[None, None]).reshape(x.shape)


class PictureTokens(nn.Module):
    """Backbone features -> encoder tokens: merged, projected and given their place."""

    config: ModelConfig
    rules: tuple[Rule, ...] = ()

    @nn.compact
    def __call__(self, features: Float[Array, "b y x c"]) -> Float[Array, "b n d"]:
        c = self.config
        merged = merge_features(features, c.merge)
        tokens = merged.reshape(merged.shape[0], c.grid * c.grid, merged.shape[-1])
        tokens = layers.QuantDense(c.width, self.rules, name="project")(tokens)
        return Positions(c.grid, c.grid, c.width, name="positions")(tokens)


class LineTokens(nn.Module):
    """A grey text line -> one token a column: full-height columns, three strides wide, overlap."""

    config: ModelConfig
    rules: tuple[Rule, ...] = ()

    @nn.compact
    def __call__(self, lines: Float[Array, "b y x"]) -> Float[Array, "b n d"]:
        c = self.config
        stride, columns = c.line_stride, c.line_columns
        pixels = even_contrast(lines)
        # The edge is repeated: a zero would look like a stroke on a light ground.
        pixels = jnp.pad(pixels, ((0, 0), (0, 0), (stride, stride)), mode="edge")
        # A stack of convolutions reads about as well and is a quarter slower.
        parts = []
        for offset in (0, stride, 2 * stride):
            part = pixels[:, :, offset : offset + c.line_width]
            part = part.reshape(-1, c.line_height, columns, stride).transpose(0, 2, 1, 3)
            parts.append(part.reshape(-1, columns, c.line_height * stride))
        tokens = layers.Mlp(2 * c.width, c.width, self.rules, name="project")(
            jnp.concatenate(parts, axis=-1)
        )
        return Positions(1, columns, c.width, name="positions")(tokens)


class Encoder(nn.Module):
    """The shared pre-norm ViT blocks, unmasked."""

    config: ModelConfig
    rules: tuple[Rule, ...] = ()

    def setup(self) -> None:
        self.block = [
            attention.Block(self.config, self.rules) for _ in range(self.config.encoder_blocks)
        ]
        self.norm = layers.Norm()

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        for block in self.block:
            x, _ = block(x)
        return self.norm(x)
