"""The backbone as a run holds it: pretrained, its last blocks perhaps tuned, then rounded.

The blocks up to `FROZEN_LEVEL` stay as ImageNet left them; those behind it are the trainable ones.
The run itself trains on the features of the backbone that ships, but for what eight bits change:
rounding weights or activations to eight bits costs nothing that can be measured, and the features
are the float backbone's. Weights below eight bits are rounded before the features are cached.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmllm.common import config as config_lib
from mmllm.common import tensors
from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.data import pretrained as sources
from mmllm.models import efficientnet_lite0
from mmllm.quant import grid, tree
from mmllm.quant.rules import Rule
from mmllm.train.student import plan

FROZEN_LEVEL, LAST_LEVEL = "14x14x112", "7x7x320"
TUNED = "tuned.safetensors"
# Rounding to so many moves no feature by an amount that can be measured.
LOSSLESS_BITS = 8


def pretrained(config: Config) -> Params:
    """The backbone as ImageNet left it."""
    weights = sources.efficientnet_lite0_weights()
    return efficientnet_lite0.convert_weights(weights, config.model.level)


def trainable_blocks() -> efficientnet_lite0.EfficientNetLite0:
    """The part of the backbone behind `FROZEN_LEVEL`, as a model of its own."""
    return efficientnet_lite0.EfficientNetLite0(level=LAST_LEVEL, entry=FROZEN_LEVEL)


def frozen_names() -> tuple[str, ...]:
    """Names of the parts up to `FROZEN_LEVEL`."""
    return ("stem", *efficientnet_lite0.block_names(FROZEN_LEVEL))


def split(backbone: Params) -> tuple[Params, Params]:
    """Parameters of the whole backbone -> (up to `FROZEN_LEVEL`, behind it)."""
    frozen = frozen_names()
    return (
        {name: value for name, value in backbone.items() if name in frozen},
        {name: value for name, value in backbone.items() if name not in frozen},
    )


def half(blocks: Params) -> Params:
    """Blocks in float16, as they ship: features must come from those."""
    return jax.tree.map(lambda value: np.asarray(value, np.float16), blocks)


def has_trained_blocks(config: Config) -> bool:
    """Whether blocks of the backbone were trained, and lie in a file."""
    return bool(config.tune.steps or config.quant.reconstruction.steps)


def blocks_file(config: Config) -> str:
    """Name of the file with the trained blocks: tuned ones, or ones trained on their grids."""
    if not config.quant.reconstruction.steps:
        return TUNED
    # Students of one run share a folder, whatever their grids.
    text = json.dumps(rounding(config), sort_keys=True)
    return f"reconstructed-{hashlib.sha256(text.encode()).hexdigest()[:8]}.safetensors"


def whole(config: Config, folder: Path) -> Params:
    """The backbone before any rounding, its tuned blocks read from `folder`.

    Raises:
      FileNotFoundError: the backbone is tuned, and the folder lacks the blocks.
    """
    return _with_blocks(pretrained(config), folder / TUNED if config.tune.steps else None)


def params(config: Config, folder: Path) -> Params | None:
    """The backbone whose weights a run rounds, its trained blocks from `folder`; None for "patch".

    Raises:
      FileNotFoundError: blocks were trained, and the folder lacks them.
    """
    if config.model.backbone == "patch":
        return None
    path = folder / blocks_file(config) if has_trained_blocks(config) else None
    return _with_blocks(pretrained(config), path)


def _with_blocks(backbone: Params, path: Path | None) -> Params:
    # Whole blocks are replaced, their depthwise kernels and biases included.
    blocks = tensors.read(path)["trainable"] if path else {}
    return {**backbone, **jax.tree.map(jnp.asarray, blocks)}


def scales(config: Config, folder: Path, backbone: Params) -> Params:
    """The scales its weights are rounded with: learned, or the ones of least square error."""
    # Only coarse weights have learned scales; those at eight bits take the one of least error.
    found = tree.init_scales({"backbone": backbone}, plan.backbone(config))
    if config.quant.reconstruction.steps:
        learned = tensors.read(folder / blocks_file(config)).get("scales", {})
        found = tensors.unflatten(dict(tensors.flatten(found)) | dict(tensors.flatten(learned)))
    return found


def coarse(config: Config) -> dict[str, Rule]:
    """The weights of the backbone whose rounding moves its features: those below eight bits."""
    return {
        path: rule
        for path, rule in plan.backbone(config).items()
        if grid.GRIDS[rule.weights].bits < LOSSLESS_BITS
    }


def rounding(config: Config) -> dict[str, Any]:
    """What the rounding of the backbone adds to the key of its features; nothing at eight bits."""
    rules = {path: [rule.weights, rule.scale] for path, rule in coarse(config).items()}
    if not config.quant.reconstruction.steps:
        return {"rules": rules} if rules else {}
    # Learned weights and scales: what trained them counts, not only the grids.
    section = config_lib.to_dict(config.quant.reconstruction)
    return {"rules": rules, "reconstruction": [section, config.quant.scale_rate]}


def rounded(config: Config, folder: Path, backbone: Params) -> Params:
    """The backbone of `params` with its coarse weights as the floats their codes stand for."""
    if not coarse(config):
        return backbone
    found = scales(config, folder, backbone)
    rounded_: Any = tree.fake_quantize({"backbone": backbone}, found, coarse(config))
    return rounded_["backbone"]
