"""The stem as a run holds it: pretrained, perhaps tuned, never trained in the loop, and rounded.

A run trains on the cells of the stem that ships, but for what eight bits change: rounding weights
or activations to eight bits costs nothing that can be measured, and the cells are the float stem's.
Weights below eight bits are rounded before the cells are cached.
"""

import hashlib
import json
from collections.abc import Mapping
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
    """The stem as ImageNet left it."""
    weights = sources.efficientnet_lite0_weights()
    return efficientnet_lite0.convert_weights(weights, config.model.tap)


def params(config: Config, folder: Path) -> Params | None:
    """The stem of a run in float, its tuned part read from `folder`; None for the patch stem.

    Raises:
      FileNotFoundError: the stem is tuned, and the folder lacks it.
    """
    if config.model.stem == "patch":
        return None
    stem = pretrained(config)
    if config.tune.steps:
        stem |= jax.tree.map(jnp.asarray, tensors.read(folder / TUNED)["tail"])
    return stem


def planned(config: Config) -> dict[str, Rule]:
    """The quantized weights of the stem, by path."""
    found = stages.plan(config) if config.quant.rules else {}
    return {path: rule for path, rule in found.items() if path.startswith(stages.STEM)}


def scales(stem: Params, rules: Mapping[str, Rule]) -> Params:
    """The scales its weights are rounded with: the ones of least square error, or a statistic."""
    return tree.init_scales({"stem": stem}, rules)


def coarse(config: Config) -> dict[str, Rule]:
    """The weights of the stem whose rounding moves its cells: those below eight bits."""
    return {
        path: rule
        for path, rule in planned(config).items()
        if grid.GRIDS[rule.grid].bits < LOSSLESS_BITS
    }


def rounded(config: Config, stem: Params) -> Params:
    """The stem with its coarse weights as the floats their codes stand for."""
    rules = coarse(config)
    whole: Any = tree.fake_quantize({"stem": stem}, scales(stem, rules), rules)
    return whole["stem"]


def digest(config: Config) -> str:
    """What the rounding of the stem adds to the names of cached cells; nothing at eight bits."""
    rules = {path: [rule.grid, rule.scale] for path, rule in coarse(config).items()}
    text = json.dumps(rules, sort_keys=True)
    return f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}" if rules else ""
