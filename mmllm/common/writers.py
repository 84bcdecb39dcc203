"""Where a run's numbers go: metrics.jsonl always, clu's TensorBoard writer where it is installed."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO


class MetricsWriter:
    """Appends one JSON object a line to `<workdir>/metrics.jsonl`; a resumed run drops later steps."""

    def __init__(self, workdir: Path, resume_step: int = 0, *, tensorboard: bool = False) -> None:
        workdir.mkdir(parents=True, exist_ok=True)
        self._path = workdir / "metrics.jsonl"
        self._drop_after(resume_step)
        self._file: TextIO = self._path.open("a")
        self._clu = _clu_writer(workdir) if tensorboard else None

    def _drop_after(self, step: int) -> None:
        if not self._path.exists():
            return
        rows = [line for line in self._path.read_text().splitlines() if json.loads(line)["step"] <= step]
        partial = self._path.with_suffix(".partial")
        partial.write_text("".join(f"{row}\n" for row in rows))
        partial.replace(self._path)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes scalars of one step; values that are not finite become null."""
        row: dict[str, Any] = {"step": step, "time": round(time.time(), 1)}
        for name, value in metrics.items():
            row[name] = float(f"{value:.6g}") if math.isfinite(value) else None
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._clu is not None:
            self._clu.write_scalars(step, {k: float(v) for k, v in metrics.items()})

    def close(self) -> None:
        self._file.close()
        if self._clu is not None:
            self._clu.close()


def _clu_writer(workdir: Path) -> Any:
    try:
        from clu import metric_writers
    except ImportError as error:
        raise ImportError(
            f"train.tensorboard needs clu, tensorboard and tensorflow ({error}): "
            "pip install 'mmllm[train]'"
        ) from error
    return metric_writers.create_default_writer(str(workdir), just_logging=False)
