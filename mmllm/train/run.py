"""What the phases of one training run share: its config, its folders, and what they left so far."""

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmllm.common import config as config_lib
from mmllm.common import paths, tensors
from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.data import pipeline
from mmllm.train import checkpoint

CONFIG = "config.json"  # what the folder of a run is bound to
SUMMARY = "run.json"  # of a finished run
TOWER = "tower.safetensors"  # the aligned text tower

Report = Callable[[str], None]


@dataclasses.dataclass(kw_only=True)
class Run:
    """One run; a phase reads what the ones before it left here and in the folders.

    Attributes:
      config: the experiment.
      workdir: the run's own folder: checkpoints, metrics, and what export needs.
      report: takes the progress lines.
      stop_at: stop after this step, to be resumed later.
      tensorboard: also write TensorBoard events.
      tuned: the last blocks of a backbone that was tuned elsewhere, in the place of tuning them.
      tables: folder of texts, tables and vocabulary, once `prepare` has run.
      arrays: what a step reads, once `cache_features` has run.
      validation: the same of the "val" splits; None for a run that never validates.
      trained: whether `multitask` has come to its end.
    """

    config: Config
    workdir: Path
    report: Report = print
    stop_at: int | None = None
    tensorboard: bool = False
    tuned: Params | None = None
    tables: Path | None = None
    arrays: pipeline.TrainingArrays | None = None
    validation: pipeline.TrainingArrays | None = None
    trained: bool = False

    @property
    def tower(self) -> Path:
        """Where the aligned text tower lies."""
        return self.workdir / TOWER

    @property
    def validates(self) -> bool:
        """Whether the run comes to a validation at all."""
        every = self.config.train.validate_every
        return 0 < every <= self.config.train.steps


def claim(workdir: Path, config: Config) -> None:
    """Binds a work folder to one config; resuming with another one is refused.

    Raises:
      ValueError: `workdir` holds a run of another config.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / CONFIG
    values = config_lib.to_dict(config)
    if not path.exists():
        _write(path, values)
        return
    try:
        known = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        message = f"{path} is not valid JSON ({error}); use another --workdir"
        raise ValueError(message) from error
    with contextlib.suppress(ValueError):  # what was added since has its default
        known = config_lib.to_dict(config_lib.resolve(known))
    if known != values:
        changed = [k for k in values if known.get(k) != values[k]]
        raise ValueError(
            f"{workdir} holds a run of another config (differs in {', '.join(changed)}); "
            "use another --workdir"
        )


def summarize(workdir: Path, values: dict[str, Any]) -> None:
    """Writes what is known of a finished run, beside its config and what is known already."""
    _write(workdir / SUMMARY, summary(workdir) | values)


def summary(workdir: Path) -> dict[str, Any]:
    """What `summarize` wrote down; nothing of a run that is not finished."""
    path = workdir / SUMMARY
    return json.loads(path.read_text()) if path.is_file() else {}


def _write(path: Path, values: Any) -> None:
    with paths.written_whole(path) as partial:
        partial.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")


def finished_params(workdir: Path) -> Params:
    """Parameters of a run's newest checkpoint, with its aligned text tower if it has one.

    Raises:
      FileNotFoundError: no checkpoint.
    """
    params = checkpoint.load_params(workdir)
    tower = workdir / TOWER
    return joined(params, tower) if tower.is_file() else params


def joined(params: Params, path: Path) -> Params:
    """Parameters of a run with the aligned tower in the place of the run's own.

    Raises:
      FileNotFoundError: no such file.
    """
    tower = tensors.read(path)
    return dict(params) | {part: {**params[part], **tower[part]} for part in tower}
