"""Training run -> bundle: the parameters of the newest checkpoint joined with the backbone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmllm import bundle
from mmllm.common import config as config_lib
from mmllm.common import provenance, tensors
from mmllm.common.types import Params
from mmllm.data import pretrained, registry, sources
from mmllm.data.charset import CHARSET
from mmllm.data.tokenizer import LANGUAGES
from mmllm.quant import coded, rules, tree
from mmllm.train import checkpoint
from mmllm.train import run as run_lib
from mmllm.train.backbone import blocks as backbone_lib
from mmllm.train.phases import prepare
from mmllm.train.student import plan, start


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


def save(
    workdir: Path,
    folder: Path,
    scores: Mapping[str, Any] | None = None,
    *,
    unfinished: bool = False,
) -> Path:
    """Writes the bundle of a finished run.

    Args:
      workdir: the run's folder, as given to `python -m mmllm.train`.
      folder: where the bundle will stand.
      scores: metric name -> value for the manifest; those of the benchmark, written later, if None.
      unfinished: takes the newest checkpoint of a run that stopped before its last step, and the
        text tower as the run left it where none was aligned.

    Returns:
      The bundle's folder.

    Raises:
      FileNotFoundError: no run, no checkpoint or no vocabulary.
      ValueError: a damaged or unfinished run, or a folder that holds something else.
    """
    config = run_config(workdir)
    trained = checkpoint.load_params(workdir)
    step = checkpoint.latest_step(workdir / checkpoint.FOLDER) or 0
    if step < config.train.steps and not unfinished:
        raise ValueError(
            f"the run in {workdir} stands at step {step} of {config.train.steps} (train.steps); "
            "finish it with the command that started it, python -m mmllm.train --config=... "
            f"--workdir={workdir}, or export it as it is with --unfinished"
        )
    # The last phase trains the tower alone, and keeps it in a file of its own.
    tower = workdir / run_lib.TOWER
    if config.align.steps and not (unfinished and not tower.is_file()):
        if not tower.is_file():
            raise FileNotFoundError(f"no aligned text tower at {tower}: finish the training first")
        trained = run_lib.joined(trained, tower)
    # A run that patience ended holds its best state under the number of the last step.
    step = run_lib.summary(workdir).get("best_step", step)
    return write(config, trained, workdir, folder, scores, step=step)


def write(
    config: config_lib.Config,
    trained: Params,
    workdir: Path,
    folder: Path,
    scores: Mapping[str, Any] | None = None,
    *,
    step: int | None = None,
) -> Path:
    """Writes the bundle of parameters in memory.

    Args:
      config: of the model; its rules say what is stored as codes.
      trained: {"model"}, and the learned "scales" of a quantized run.
      workdir: folder of the run whose backbone and vocabulary they have.
      folder: where the bundle will stand.
      scores: as in `save`.
      step: of the checkpoint they are from; None for parameters that no checkpoint holds.

    Raises:
      FileNotFoundError: no vocabulary.
      ValueError: a folder that holds something else.
    """
    params = dict(trained["model"])
    origins = []
    if config.model.backbone == "efficientnet_lite0":
        # No run trains the backbone: checkpoints leave it out, it comes from where the run had it.
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
        # An SPDX expression: all of them hold for the corpus.
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
        # MiniLM leaves no weights in a bundle, but it taught the text tower.
        pretrained=[*origins, pretrained.MINILM.manifest_entry()],
        provenance=_provenance(config, step, run_lib.summary(workdir)),
    )


def _provenance(
    config: config_lib.Config, step: int | None, summary: Mapping[str, Any]
) -> dict[str, Any]:
    """What a bundle's parameters come from: source, training config, checkpoint and float start."""
    training = config_lib.to_dict(config)
    return {
        # Of the code that trained, where the run wrote it down.
        **summary.get("source", provenance.source_state()),
        "step": step,
        "seed": config.seed,
        "training": training,
        "training_sha256": config_lib.stored_sha256(training),
        "parent": _parent(config),
    }


def _parent(config: config_lib.Config) -> dict[str, str | None] | None:
    """The run a student started from; its weights' digest is None where that run is gone."""
    if not config.quant.start:
        return None
    try:
        model = start.load(start.folder(config))["model"]
    except FileNotFoundError:
        return {"run": config.quant.start, "weights_sha256": None}
    return {"run": config.quant.start, "weights_sha256": tensors.sha256(model)}


def _coded(
    config: config_lib.Config, params: Mapping[str, Any], scales: Mapping[str, Any], workdir: Path
) -> dict[str, coded.Coded]:
    """The quantized weights of a run as codes; the backbone, which it never trained, among them."""
    if not config.quant.rules:
        return {}
    planned = plan.whole(config)
    if "backbone" in params:
        # No step of the run trains them: block reconstruction did, or they err least.
        scales = {**scales, **backbone_lib.scales(config, workdir, params["backbone"])}
    return tree.quantize(params, scales, planned)
