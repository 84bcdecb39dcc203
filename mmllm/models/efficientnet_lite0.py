"""EfficientNet-Lite0 without its classifier: the backbone that turns pictures into features.

`data.pretrained` reads the ImageNet weights, `convert_weights` folds the batch norms into them, and
the module runs before the ViT blocks (`models.mmllm`) or alone, when `train` caches its tokens.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from mmllm.models.layers import QuantDense
from mmllm.quant.rules import Rule

# ImageNet statistics of RGB in 0..1, the ones the weights were trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# TensorFlow's for this model; PyTorch's default is a hundredth of it.
BATCH_NORM_EPSILON = 1e-3
STEM_WIDTH = 32


class Stage(NamedTuple):
    """A run of inverted residual blocks; the first block of a stage takes the stride."""

    blocks: int
    stride: int
    kernel: int
    expansion: int
    width: int


# Source: Tan & Le 2019, EfficientNet B0, table 1; Lite0 drops squeeze-excite and uses ReLU6.
STAGES = (
    Stage(1, 1, 3, 1, 16),
    Stage(2, 2, 3, 6, 24),
    Stage(2, 2, 5, 6, 40),
    Stage(3, 2, 3, 6, 80),
    Stage(3, 1, 5, 6, 112),
    Stage(4, 2, 5, 6, 192),
    Stage(1, 1, 3, 6, 320),
)
LEVEL_STAGES: dict[str, int] = {"14x14x112": 5, "7x7x320": 7}


def stages_of(level: str) -> tuple[Stage, ...]:
    """Returns the stages that run before a level.

    Raises:
      ValueError: an unknown level.
    """
    if level not in LEVEL_STAGES:
        raise ValueError(f"level must be one of {sorted(LEVEL_STAGES)}, got {level!r}.")
    return STAGES[: LEVEL_STAGES[level]]


def block_names(level: str) -> list[str]:
    """Returns the names of the blocks that run before a level, in order."""
    return [f"block_{index}" for index in range(sum(stage.blocks for stage in stages_of(level)))]


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Returns TensorFlow's SAME padding of one axis: the odd pixel goes to the end."""
    # Odd for an even side at stride 2: padding both ends alike would shift the map by a pixel.
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def relu6(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Clips to 0..6."""
    # A fixed range instead of swish: what makes the Lite models easy to round.
    return jnp.clip(x, 0.0, 6.0)


def depthwise_by_shifts(
    x: Float[Array, "b y x c"], kernel: Float[Array, "k k c"], stride: int
) -> Float[Array, "b v u c"]:
    """Depthwise SAME convolution as a sum of k*k shifted products.

    On a CPU, XLA's depthwise convolution is about ten times slower than this sum, which fuses into
    one loop; on a GPU the convolution is the better form.
    """
    side = kernel.shape[0]
    rows, columns = (-(-x.shape[axis] // stride) for axis in (1, 2))
    padding = [same_padding(x.shape[axis], side, stride) for axis in (1, 2)]
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    total = jnp.zeros((x.shape[0], rows, columns, x.shape[3]), x.dtype)
    for i in range(side):
        for j in range(side):
            shifted = x[
                :,
                i : i + (rows - 1) * stride + 1 : stride,
                j : j + (columns - 1) * stride + 1 : stride,
            ]
            total = total + shifted * kernel[i, j][None, None, None, :]
    return total


def depthwise_by_convolution(
    x: Float[Array, "b y x c"], kernel: Float[Array, "k k c"], stride: int
) -> Float[Array, "b v u c"]:
    """The same convolution as one XLA operation, and one DEPTHWISE_CONV_2D when exported."""
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None, :],
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


DEPTHWISE = {"shift": depthwise_by_shifts, "conv": depthwise_by_convolution}


class DepthwiseConv(nn.Module):
    """Depthwise SAME convolution with a bias."""

    kernel: int
    stride: int
    form: str

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b v u c"]:
        width = x.shape[-1]
        kernel = self.param(
            "kernel",
            nn.initializers.lecun_normal(in_axis=(0, 1), out_axis=2),
            (self.kernel, self.kernel, width),
        )
        bias = self.param("bias", nn.initializers.zeros_init(), (width,))
        return DEPTHWISE[self.form](x, kernel, self.stride) + bias[None, None, None, :]


class Block(nn.Module):
    """Inverted residual block: expand over channels, filter each channel in space, project back."""

    stage: Stage
    first: bool
    depthwise: str
    rules: tuple[Rule, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b v u d"]:
        stage = self.stage
        y = x
        if stage.expansion != 1:
            y = relu6(QuantDense(x.shape[-1] * stage.expansion, self.rules, name="expand")(y))
        stride = stage.stride if self.first else 1
        y = relu6(DepthwiseConv(stage.kernel, stride, self.depthwise, name="depthwise")(y))
        # Without an activation: in the narrow layer, what it cuts off would be lost.
        # Source: MobileNetV2 (Sandler et al., 2018), section 3.2.
        y = QuantDense(stage.width, self.rules, name="project")(y)
        # The first block of a stage changes width or stride: there is nothing of its shape to add.
        return y if self.first else x + y


class EfficientNetLite0(nn.Module):
    """The convolutional backbone: batch norms folded, pointwise convolutions as dense layers.

    Attributes:
      level: "7x7x320" or "14x14x112", where the features leave; their shape for a 224 px picture.
      entry: None takes pixels; an earlier level takes its features and runs the blocks behind it.
      depthwise: "shift" is fast on a CPU, "conv" on a GPU and in exported files; both give the
        same numbers but for rounding.
      rules: of the whole model, whose paths begin with "backbone/": they say how the pointwise
        convolutions round their inputs. A backbone that is applied alone has none and is float.
    """

    level: str = "7x7x320"
    entry: str | None = None
    depthwise: str = "shift"
    rules: tuple[Rule, ...] = ()

    @nn.compact
    def __call__(self, x: Float[Array, "b y x i"]) -> Float[Array, "b v u c"]:
        """Turns RGB pixels in 0..255, or the features of `entry`, into features.

        A side becomes 32 times smaller at level "7x7x320", 16 times at "14x14x112", rounded up.
        """
        if self.depthwise not in DEPTHWISE:
            raise ValueError(
                f"depthwise must be one of {sorted(DEPTHWISE)}, got {self.depthwise!r}."
            )
        stages = stages_of(self.level)
        if self.entry is None:
            # Axes are written out all through the model: tests refuse to broadcast between ranks,
            # which may hide a wrong shape.
            mean = 255.0 * jnp.asarray(MEAN, x.dtype)[None, None, None, :]
            scale = 1.0 / (255.0 * jnp.asarray(STD, x.dtype)[None, None, None, :])
            x = (x - mean) * scale
            x = relu6(nn.Conv(STEM_WIDTH, (3, 3), strides=(2, 2), padding="SAME", name="stem")(x))
        # Counted from the pixels: blocks behind an entry find their parameters in the whole tree.
        before = 0 if self.entry is None else len(block_names(self.entry))
        blocks = [(stage, repeat == 0) for stage in stages for repeat in range(stage.blocks)]
        for index, (stage, first) in list(enumerate(blocks))[before:]:
            x = Block(stage, first, self.depthwise, self.rules, name=f"block_{index}")(x)
        return x


def fold_batch_norm(
    weights: Mapping[str, np.ndarray], convolution: str, norm: str
) -> tuple[Float[np.ndarray, "o i k k"], Float[np.ndarray, "o"]]:
    """Folds an inference batch norm into the convolution before it.

    Returns:
      Kernel (output, input, row, column) and bias, computed in float64 and rounded once to float32.

    Raises:
      ValueError: a tensor is missing.
    """
    names = [f"{convolution}.weight"]
    names += [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    missing = [name for name in names if name not in weights]
    if missing:
        raise ValueError(f"weights lack {missing}; expected the state dict of EfficientNet-Lite0.")
    kernel, gain, shift, mean, variance = (np.asarray(weights[name], np.float64) for name in names)
    gain = gain / np.sqrt(variance + BATCH_NORM_EPSILON)
    kernel = kernel * gain[:, None, None, None]
    return kernel.astype(np.float32), (shift - mean * gain).astype(np.float32)


def convert_weights(weights: Mapping[str, np.ndarray], level: str = "7x7x320") -> dict[str, Any]:
    """Turns a PyTorch state dict into this module's parameters, batch norms folded.

    Args:
      weights: tensors by PyTorch name: `data.pretrained.efficientnet_lite0_weights()`.
      level: the module's level; blocks behind it are left out.

    Returns:
      The tree for `EfficientNetLite0(level=level).apply({"params": tree}, ...)`.

    Raises:
      ValueError: an unknown level, or a tensor that is missing.
    """

    def pointwise(convolution: str, norm: str) -> dict[str, jax.Array]:
        kernel, bias = fold_batch_norm(weights, convolution, norm)
        return {"kernel": jnp.asarray(kernel[:, :, 0, 0].T), "bias": jnp.asarray(bias)}

    # PyTorch has the output channels first, Flax last; a depthwise kernel has one input channel.
    kernel, bias = fold_batch_norm(weights, "_conv_stem", "_bn0")
    params: dict[str, Any] = {
        "stem": {"kernel": jnp.asarray(kernel.transpose(2, 3, 1, 0)), "bias": jnp.asarray(bias)}
    }
    index = 0
    for stage in stages_of(level):
        for _ in range(stage.blocks):
            name = f"_blocks.{index}"
            block: dict[str, Any] = {}
            if stage.expansion != 1:
                block["expand"] = pointwise(f"{name}._expand_conv", f"{name}._bn0")
            kernel, bias = fold_batch_norm(weights, f"{name}._depthwise_conv", f"{name}._bn1")
            kernel = kernel[:, 0].transpose(1, 2, 0)
            block["depthwise"] = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
            block["project"] = pointwise(f"{name}._project_conv", f"{name}._bn2")
            params[f"block_{index}"] = block
            index += 1
    return params
