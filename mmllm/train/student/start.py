"""The float run that a quantized one goes on from, and which also teaches it.

`quant.start` names it, by its folder or by its name in <data folder>/runs, and may add the
fingerprint of its weights: NAME@FINGERPRINT.
"""

import dataclasses
import json
import re
from pathlib import Path

from mmllm.common import config as config_lib
from mmllm.common import paths, tensors
from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.train import checkpoint
from mmllm.train import run as run_lib

DIGITS = 12  # hex digits of a fingerprint


def named(config: Config) -> tuple[str, str]:
    """The run that `quant.start` names, and the fingerprint it asks for, "" for any."""
    found = re.fullmatch(rf"(.*?)(?:@([0-9a-f]{{{DIGITS}}}))?", config.quant.start)
    assert found is not None  # any text matches
    return found[1], found[2] or ""


def folder(config: Config) -> Path:
    """Folder of the run that `quant.start` names.

    Raises:
      FileNotFoundError: there is none.
    """
    name, _ = named(config)
    for found in (paths.data_dir() / "runs" / name, Path(name).expanduser()):
        if (found / run_lib.CONFIG).is_file():
            return found
    raise FileNotFoundError(
        f"no run {name!r} (quant.start), neither in {paths.data_dir() / 'runs'} nor as a folder; "
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
    return int(json.loads((folder(config) / run_lib.CONFIG).read_text())["seed"])


def check(config: Config, workdir: Path) -> None:
    """Checks that the run in `workdir` is finished and gives the model that a student rounds.

    Raises:
      FileNotFoundError: its text tower has not been aligned, although its config says so.
      ValueError: another model, a run that did not come to its last step, or other weights than
        `quant.start` asks for.
    """
    begun = config_lib.resolve(json.loads((workdir / run_lib.CONFIG).read_text()))
    unlike = [
        field.name
        for field in dataclasses.fields(begun.model)
        if getattr(begun.model, field.name) != getattr(config.model, field.name)
    ]
    if unlike:
        raise ValueError(f"the run in {workdir} has another model.{unlike[0]} than this config")
    step = checkpoint.latest_step(workdir / checkpoint.FOLDER)
    if step != begun.train.steps:
        raise ValueError(
            f"the run in {workdir} stands at step {step} of {begun.train.steps}; finish it first"
        )
    if begun.align.steps and not (workdir / run_lib.TOWER).is_file():
        raise FileNotFoundError(f"no {run_lib.TOWER} in {workdir}; finish the run first")
    name, expected = named(config)
    if expected and (found := fingerprint(load(workdir))) != expected:
        raise ValueError(
            f"the run in {workdir} has the fingerprint {found}, quant.start asks for {expected}; "
            f"--config.quant.start={name} takes the run as it is"
        )


def load(workdir: Path) -> Params:
    """{"model", "prototypes"} of a finished float run, its aligned text tower included.

    Raises:
      FileNotFoundError: no checkpoint.
      ValueError: the run is a quantized one: it has no prototypes.
    """
    params = run_lib.finished_params(workdir)
    if "prototypes" not in params:
        raise ValueError(f"{workdir} holds a quantized run; quant.start must be a float one")
    return params


def fingerprint(params: Params) -> str:
    """Which weights these are: a short sha256 of {"model"} in float16, as a bundle holds them."""
    return tensors.sha256(params["model"])[:DIGITS]
