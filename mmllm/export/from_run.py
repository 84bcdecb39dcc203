"""Training run -> bundle: the parameters of the newest checkpoint joined with the backbone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmllm import bundle
from mmllm.common import config as config_lib
from mmllm.common.types import Params
from mmllm.data import pretrained, registry, sources
from mmllm.data.charset import CHARSET
from mmllm.data.tokenizer import LANGUAGES
from mmllm.quant import coded, rules, tree
from mmllm.train import backbone as backbone_lib
from mmllm.train import checkpoint
from mmllm.train import run as run_lib
from mmllm.train.phases import prepare
from mmllm.train.student import plan


def run_config(workdir: Path) -> config_lib.Config:
    """The config of a run.

    Raises:
      FileNotFoundError: the folder holds no run.
      ValueError: its config.json is damaged.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"no training run at {workdir}: config.json is missing")
    try:
        return config_lib.resolve(json.loads(path.read_text()))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def save(workdir: Path, folder: Path, scores: Mapping[str, Any] | None = None) -> Path:
    """Writes the bundle of a run's newest checkpoint.

    Args:
      workdir: the run's folder, as given to `python -m mmllm.train`.
      folder: where the bundle will stand.
      scores: metric name -> value for the manifest; those of the benchmark, written later, if None.

    Returns:
      The bundle's folder.

    Raises:
      FileNotFoundError: no run, no checkpoint or no vocabulary.
      ValueError: a damaged run, or a folder that holds something else.
    """
    config = run_config(workdir)
    trained = checkpoint.load_params(workdir)
    tower = workdir / run_lib.TOWER
    if config.align.steps:
        if not tower.is_file():
            raise FileNotFoundError(f"no aligned text tower at {tower}: finish the training first")
        trained = run_lib.joined(trained, tower)
    return write(config, trained, workdir, folder, scores)


def write(
    config: config_lib.Config,
    trained: Params,
    workdir: Path,
    folder: Path,
    scores: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the bundle of parameters in memory.

    Args:
      config: of the model; its rules say what is stored as codes.
      trained: {"model"}, and the learned "scales" of a quantized run.
      workdir: folder of the run whose backbone and vocabulary they have.
      folder: where the bundle will stand.
      scores: as in `save`.

    Raises:
      FileNotFoundError: no vocabulary.
      ValueError: a folder that holds something else.
    """
    params = dict(trained["model"])
    origins = []
    if config.model.backbone == "efficientnet_lite0":
        params["backbone"] = backbone_lib.params(config, workdir)
        origin = pretrained.EFFICIENTNET_LITE0.manifest_entry()
        if backbone_lib.has_trained_blocks(config):
            origin["tuned"] = f"the blocks behind level {backbone_lib.FROZEN_LEVEL}"
        origins.append(origin)
    tokenizer = workdir / prepare.TOKENIZER
    if not tokenizer.is_file():
        raise FileNotFoundError(f"no vocabulary at {tokenizer}: was this run trained on corpora?")
    codes = _coded(config, params, trained.get("scales", {}), workdir)
    data = []
    for name in registry.mixture(config):
        built = sources.describe(name)
        licences = " AND ".join(sorted(built["licences"]))
        data.append({"name": name, "hash": built["hash"], "licence": licences})
    return bundle.save(
        folder,
        params=params,
        config=config.model,
        tokenizer_path=tokenizer,
        charset=CHARSET,
        languages=LANGUAGES,
        scores=scores or {},
        data=data,
        coded=codes,
        rules=rules.parse(config.quant.rules),
        pretrained=[*origins, pretrained.MINILM.manifest_entry()],
    )


def _coded(
    config: config_lib.Config, params: Mapping[str, Any], scales: Mapping[str, Any], workdir: Path
) -> dict[str, coded.Coded]:
    """The quantized weights of a run as codes; the backbone, which no run trains, is rounded here."""
    if not config.quant.rules:
        return {}
    planned = plan.whole(config)
    if "backbone" in params:
        scales = {**scales, **backbone_lib.scales(config, workdir, params["backbone"])}
    return tree.quantize(params, scales, planned)
