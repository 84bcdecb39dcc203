"""Weights of the pretrained backbone's shapes, drawn at random."""

import numpy as np

from mmllm.models import efficientnet_lite0


def random_weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns a PyTorch state dict of the right shapes with batch norms that do something."""
    weights: dict[str, np.ndarray] = {}

    def convolution(name: str, outputs: int, inputs: int, kernel: int) -> None:
        scale = np.sqrt(2.0 / (inputs * kernel * kernel))
        shape = (outputs, inputs, kernel, kernel)
        weights[f"{name}.weight"] = (scale * rng.standard_normal(shape)).astype(np.float32)

    def norm(name: str, width: int) -> None:
        weights[f"{name}.weight"] = rng.uniform(0.5, 1.5, width).astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(0, 0.3, width).astype(np.float32)
        weights[f"{name}.running_mean"] = rng.normal(0, 0.3, width).astype(np.float32)
        weights[f"{name}.running_var"] = rng.uniform(0.2, 2.0, width).astype(np.float32)
        weights[f"{name}.num_batches_tracked"] = np.array(7)

    convolution("_conv_stem", 32, 3, 3)
    norm("_bn0", 32)
    width, index = 32, 0
    for stage in efficientnet_lite0.STAGES:
        for _ in range(stage.blocks):
            block, inner = f"_blocks.{index}", width * stage.expansion
            if stage.expansion != 1:
                convolution(f"{block}._expand_conv", inner, width, 1)
                norm(f"{block}._bn0", inner)
            convolution(f"{block}._depthwise_conv", inner, 1, stage.kernel)
            norm(f"{block}._bn1", inner)
            convolution(f"{block}._project_conv", stage.width, inner, 1)
            norm(f"{block}._bn2", stage.width)
            width, index = stage.width, index + 1
    return weights
