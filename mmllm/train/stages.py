"""What a quantized run begins with: the float run it goes on from, and the weights it rounds.

A config names the run before it, which also teaches it, and how many of its own steps still train
in float before it rounds.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmllm.common import config as config_lib
from mmllm.common import paths
from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.models import mmllm as model_lib
from mmllm.quant import rules, scale, tree
from mmllm.quant.coded import Coded
from mmllm.quant.rules import Rule
from mmllm.train import align_text, checkpoint

BACKBONE = "backbone/"


def plan(config: Config) -> dict[str, Rule]:
    """The quantized weights of a config's model, the backbone included, by path.

    Raises:
      ValueError: a rule that cannot work, see `quant.rules` and `quant.tree.plan`.
    """
    parsed = rules.parse(config.quant.rules)
    shapes: Any = jax.eval_shape(
        lambda key: model_lib.init_params(config.model, key), jax.random.key(0)
    )
    if config.quant.scale_start not in scale.INITIAL:
        raise ValueError(
            f"quant.scale_start must be one of {', '.join(scale.INITIAL)}, "
            f"got {config.quant.scale_start!r}"
        )
    for path, inputs in tree.inputs(shapes, parsed).items():
        if path.startswith(BACKBONE) and inputs == rules.INT8_STATIC:
            raise ValueError(
                f"quant.rules must not round the inputs of {path} as int8_static: the backbone's "
                "features are cached before anything is calibrated; use int8"
            )
    return tree.plan(shapes, parsed)


def trained(planned: Mapping[str, Rule]) -> dict[str, Rule]:
    """The part of a plan that a run trains: all but the frozen backbone, which export rounds."""
    return {path: rule for path, rule in planned.items() if not path.startswith(BACKBONE)}


def float_steps(config: Config) -> int:
    """Steps of a quantized run that train in float, before those that round."""
    return config.train.steps - max(1, round(config.quant.share * config.train.steps))


def start_folder(config: Config) -> Path:
    """Folder of the run that `quant.start` names.

    Raises:
      FileNotFoundError: there is none.
    """
    start = config.quant.start
    for folder in (paths.data_dir() / "runs" / start, Path(start).expanduser()):
        if (folder / "config.json").is_file():
            return folder
    raise FileNotFoundError(
        f"no run {start!r} (quant.start), neither in {paths.data_dir() / 'runs'} nor as a folder; "
        "train it first"
    )


def data_seed(config: Config) -> int:
    """Seed of what is cached; a quantized run's is that of the run it starts from.

    So students of one float run share its cache and its backbone, whatever their own seeds.

    Raises:
      FileNotFoundError: no run that `quant.start` names.
    """
    if not config.quant.start:
        return config.seed
    start = start_folder(config) / "config.json"
    return int(json.loads(start.read_text())["seed"])


def check_start(config: Config, folder: Path) -> None:
    """Checks that the run in `folder` is finished and gives the model that a student rounds.

    Raises:
      FileNotFoundError: its text tower has not been aligned, although its config says so.
      ValueError: another model, or a run that did not come to its last step.
    """
    start = config_lib.resolve(json.loads((folder / "config.json").read_text()))
    unlike = [
        field.name
        for field in dataclasses.fields(start.model)
        if getattr(start.model, field.name) != getattr(config.model, field.name)
    ]
    if unlike:
        raise ValueError(f"the run in {folder} has another model.{unlike[0]} than this config")
    step = checkpoint.latest_step(folder / checkpoint.FOLDER)
    if step != start.train.steps:
        raise ValueError(
            f"the run in {folder} stands at step {step} of {start.train.steps}; finish it first"
        )
    if start.align.steps and not (folder / align_text.TOWER).is_file():
        raise FileNotFoundError(f"no {align_text.TOWER} in {folder}; finish the run first")


def load_teacher(workdir: Path) -> Params:
    """{"model", "prototypes"} of a finished float run, its aligned text tower included.

    Raises:
      FileNotFoundError: no checkpoint.
      ValueError: the run is a quantized one: it has no prototypes.
    """
    params = checkpoint.load_params(workdir)
    if "prototypes" not in params:
        raise ValueError(f"{workdir} holds a quantized run; quant.start must be a float one")
    tower = workdir / align_text.TOWER
    return align_text.joined(params, tower) if tower.is_file() else params


class Watch:
    """How far codes and scales move from one look to the next, by weight.

    Args:
      planned: the quantized weights.
      start: {"model", "scales"} before the first step, whatever step a run resumes from.
    """

    def __init__(self, planned: Mapping[str, Rule], start: Params) -> None:
        self._planned = planned
        self._first = self._means(start)
        self._last: dict[str, Coded] = {}

    def _means(self, params: Params) -> dict[str, float]:
        held = tree.with_scales(params["model"], params["scales"], self._planned)
        return {path: float(np.mean(scale)) for path, (_, scale) in held.items()}

    def look(self, params: Params) -> dict[str, float]:
        """Statistics of a training state's parameters.

        Returns:
          "flips/PATH", the share of codes changed since the last look, which the first look lacks;
          "scale/PATH", the mean of the scales over their mean at the start.
        """
        coded = tree.quantize(params["model"], params["scales"], self._planned)
        flips = tree.flip_rates(self._last, coded) if self._last else {}
        self._last = coded
        found = {f"flips/{path}": rate for path, rate in flips.items()}
        return found | {
            f"scale/{path}": mean / self._first[path] for path, mean in self._means(params).items()
        }
