"""The backbone as a run holds it: pretrained, perhaps tuned, never trained in the loop, and rounded.

A run trains on the features of the backbone that ships, but for what eight bits change: rounding weights
or activations to eight bits costs nothing that can be measured, and the features are the float backbone's.
Weights below eight bits are rounded before the features are cached; `train.quantize_backbone` may train them
on their grids first.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mmllm.common import tensors
from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.data import pretrained as sources
from mmllm.models import efficientnet_lite0
from mmllm.quant import grid, tree
from mmllm.quant.rules import Rule
from mmllm.train import stages

TUNED = "tuned.safetensors"
LOSSLESS_BITS = 8


def pretrained(config: Config) -> Params:
    """The backbone as ImageNet left it."""
    weights = sources.efficientnet_lite0_weights()
    return efficientnet_lite0.convert_weights(weights, config.model.level)


def whole(config: Config, folder: Path) -> Params:
    """The backbone before any rounding, its tuned part read from `folder`.

    Raises:
      FileNotFoundError: the backbone is tuned, and the folder lacks it.
    """
    return _with_trained(pretrained(config), folder / TUNED if config.tune.steps else None)


def has_trained_blocks(config: Config) -> bool:
    """Whether a part of the backbone was trained, and lies in a file."""
    return bool(config.tune.steps or config.quant.backbone_steps)


def trainable_file(config: Config) -> str:
    """Name of the file with the trained part of the backbone; one taught its grids has its own."""
    return f"tuned{digest(config)}.safetensors" if config.quant.backbone_steps else TUNED


def params(config: Config, folder: Path) -> Params | None:
    """The backbone whose weights a run rounds, its trained part from `folder`; None for the patch backbone.

    Raises:
      FileNotFoundError: a part was trained, and the folder lacks it.
    """
    if config.model.backbone == "patch":
        return None
    trainable = folder / trainable_file(config) if has_trained_blocks(config) else None
    return _with_trained(pretrained(config), trainable)


def _with_trained(backbone: Params, path: Path | None) -> Params:
    trainable = tensors.read(path)["trainable"] if path else {}
    return {**backbone, **jax.tree.map(jnp.asarray, trainable)}


def planned(config: Config) -> dict[str, Rule]:
    """The quantized weights of the backbone, by path."""
    found = stages.plan(config) if config.quant.rules else {}
    return {path: rule for path, rule in found.items() if path.startswith(stages.BACKBONE)}


def scales(config: Config, folder: Path, backbone: Params) -> Params:
    """The scales its weights are rounded with: learned, or the ones of least square error."""
    found = tree.init_scales({"backbone": backbone}, planned(config))
    if config.quant.backbone_steps:
        learned = tensors.read(folder / trainable_file(config)).get("scales", {})
        found = tensors.unflatten(dict(tensors.flatten(found)) | dict(tensors.flatten(learned)))
    return found


def coarse(config: Config) -> dict[str, Rule]:
    """The weights of the backbone whose rounding moves its features: those below eight bits."""
    return {
        path: rule
        for path, rule in planned(config).items()
        if grid.GRIDS[rule.weights].bits < LOSSLESS_BITS
    }


def rounded(config: Config, folder: Path, backbone: Params) -> Params:
    """The backbone of `params` with its coarse weights as the floats their codes stand for."""
    if not coarse(config):
        return backbone
    found = scales(config, folder, backbone)
    rounded_: Any = tree.fake_quantize({"backbone": backbone}, found, coarse(config))
    return rounded_["backbone"]


def digest(config: Config) -> str:
    """What the rounding of the backbone adds to the names of cached features; nothing at eight bits."""
    rules: Any = {path: [rule.weights, rule.scale] for path, rule in coarse(config).items()}
    if config.quant.backbone_steps:
        rules = [rules, config.quant.backbone_steps, config.quant.scale_rate, config.tune.batch]
    text = json.dumps(rules, sort_keys=True)
    return f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}" if rules else ""
