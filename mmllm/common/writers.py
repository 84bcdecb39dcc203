"""Where a run's numbers go: metrics.jsonl always, and TensorBoard through clu on request."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO


class MetricsWriter:
    """Appends one JSON object a line to `<workdir>/metrics.jsonl`.

    A resumed run drops the rows after its step, and a last row that a killed run left half-written.

    Args:
      workdir: folder of the run, made if it is missing.
      resume_step: the step the run goes on from.
      tensorboard: also write TensorBoard events.

    Raises:
      ValueError: a metrics.jsonl with a row that is not JSON before its last.
      ImportError: TensorBoard requested without clu.
    """

    def __init__(self, workdir: Path, resume_step: int = 0, *, tensorboard: bool = False) -> None:
        workdir.mkdir(parents=True, exist_ok=True)
        self._clu = _clu_writer(workdir) if tensorboard else None
        self._path = workdir / "metrics.jsonl"
        self._drop_after(resume_step)
        self._file: TextIO = self._path.open("a")

    def _drop_after(self, step: int) -> None:
        if not self._path.exists():
            return
        rows = self._path.read_text().splitlines()
        earlier = []
        for number, row in enumerate(rows, start=1):
            try:
                if json.loads(row)["step"] <= step:
                    earlier.append(row)
            except json.JSONDecodeError as error:
                # A killed process can only have cut the last row; elsewhere it is damage.
                if number < len(rows):
                    raise ValueError(
                        f"{self._path}, line {number}, is not JSON ({error}); "
                        "remove the line or use another --workdir"
                    ) from error
        partial = self._path.with_suffix(".partial")
        partial.write_text("".join(f"{row}\n" for row in earlier))
        partial.replace(self._path)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes scalars of one step; values that are not finite become null."""
        row: dict[str, Any] = {"step": step, "time": round(time.time(), 1)}
        for name, value in metrics.items():
            # JSON knows no NaN, and a float32 has no more than seven digits.
            row[name] = float(f"{value:.6g}") if math.isfinite(value) else None
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()  # so that a run can be watched, and a killed one loses nothing
        if self._clu is not None:
            self._clu.write_scalars(step, {k: float(v) for k, v in metrics.items()})

    def close(self) -> None:
        """Closes the files; nothing is written afterwards."""
        self._file.close()
        if self._clu is not None:
            self._clu.close()


def _clu_writer(workdir: Path) -> Any:
    try:
        from clu import metric_writers
    except ImportError as error:
        raise ImportError(
            f"--tensorboard needs clu, tensorboard and tensorflow ({error}): "
            "pip install 'mmllm[train]'"
        ) from error
    return metric_writers.create_default_writer(str(workdir), just_logging=False)
