"""The stem as a run holds it: pretrained, perhaps tuned, never trained in the loop, and rounded.

A run trains on the cells of the stem that ships, but for what eight bits change: rounding weights
or activations to eight bits costs nothing that can be measured, and the cells are the float stem's.
Weights below eight bits are rounded before the cells are cached; `train.teach_stem` may train them
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
    """The stem as ImageNet left it."""
    weights = sources.efficientnet_lite0_weights()
    return efficientnet_lite0.convert_weights(weights, config.model.tap)


def whole(config: Config, folder: Path) -> Params:
    """The stem before any rounding, its tuned part read from `folder`.

    Raises:
      FileNotFoundError: the stem is tuned, and the folder lacks it.
    """
    return _with_tail(pretrained(config), folder / TUNED if config.tune.steps else None)


def has_tail(config: Config) -> bool:
    """Whether a part of the stem was trained, and lies in a file."""
    return bool(config.tune.steps or config.quant.stem_steps)


def tail_file(config: Config) -> str:
    """Name of the file with the trained part of the stem; one taught its grids has its own."""
    return f"tuned{digest(config)}.safetensors" if config.quant.stem_steps else TUNED


def params(config: Config, folder: Path) -> Params | None:
    """The stem whose weights a run rounds, its trained part from `folder`; None for the patch stem.

    Raises:
      FileNotFoundError: a part was trained, and the folder lacks it.
    """
    if config.model.stem == "patch":
        return None
    tail = folder / tail_file(config) if has_tail(config) else None
    return _with_tail(pretrained(config), tail)


def _with_tail(stem: Params, path: Path | None) -> Params:
    tail = tensors.read(path)["tail"] if path else {}
    return {**stem, **jax.tree.map(jnp.asarray, tail)}


def planned(config: Config) -> dict[str, Rule]:
    """The quantized weights of the stem, by path."""
    found = stages.plan(config) if config.quant.rules else {}
    return {path: rule for path, rule in found.items() if path.startswith(stages.STEM)}


def scales(config: Config, folder: Path, stem: Params) -> Params:
    """The scales its weights are rounded with: learned, or the ones of least square error."""
    found = tree.init_scales({"stem": stem}, planned(config))
    if config.quant.stem_steps:
        learned = tensors.read(folder / tail_file(config)).get("scales", {})
        found = tensors.unflatten(dict(tensors.flatten(found)) | dict(tensors.flatten(learned)))
    return found


def coarse(config: Config) -> dict[str, Rule]:
    """The weights of the stem whose rounding moves its cells: those below eight bits."""
    return {
        path: rule
        for path, rule in planned(config).items()
        if grid.GRIDS[rule.grid].bits < LOSSLESS_BITS
    }


def rounded(config: Config, folder: Path, stem: Params) -> Params:
    """The stem of `params` with its coarse weights as the floats their codes stand for."""
    if not coarse(config):
        return stem
    found = scales(config, folder, stem)
    rounded_: Any = tree.fake_quantize({"stem": stem}, found, coarse(config))
    return rounded_["stem"]


def digest(config: Config) -> str:
    """What the rounding of the stem adds to the names of cached cells; nothing at eight bits."""
    rules: Any = {path: [rule.grid, rule.scale] for path, rule in coarse(config).items()}
    if config.quant.stem_steps:
        rules = [rules, config.quant.stem_steps, config.quant.scale_rate, config.tune.batch]
    text = json.dumps(rules, sort_keys=True)
    return f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}" if rules else ""
