"""The one training loop: every phase that trains gives `fit` a step, batches and how often to look.

In order, for each step: the batch, the step itself (jitted, its state donated), the metrics of the
step before, the progress line, validation, a checkpoint.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mmllm.common import writers
from mmllm.common.config import FitConfig
from mmllm.train import checkpoint, optimizer
from mmllm.train.state import TrainState

Report = Callable[[str], None]
Metrics = Mapping[str, Any]
Advance = Callable[[int, TrainState, Any], tuple[TrainState, Metrics]]
TOTAL = "loss/total"
VALIDATED = "val/total"
BEST = "best"  # folder in a run's, for the checkpoint of the best validation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation:
    """What is measured on pictures that no step has seen.

    Attributes:
      losses: state -> "val/NAME" of each loss and `VALIDATED`; must not depend on the step number.
      every: steps from one to the next.
      patience: how many without a better total end the loop; 0: none.
    """

    losses: Callable[[TrainState], dict[str, float]]
    every: int
    patience: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop:
    """One phase's training, as far as the loop must know it.

    Attributes:
      section: its part of the config: steps, and how often to report and save.
      path: where that part stands in the config, for the remedy in an error.
      rate_field: the name of its learning rate there.
      name: of the phase, before its lines; "" for the run itself.
      workdir: for checkpoints; None: an interrupted loop starts anew.
      keep: how many checkpoints.
      examples: in a step, for the rate in the progress line; 0: no rate is printed.
      writes: whether the metrics go to `workdir`/metrics.jsonl.
      tensorboard: and to TensorBoard.
      observe: further metrics of a state, at each report.
      validation: None for a loop without.
    """

    section: FitConfig
    path: str
    rate_field: str = "learning_rate"
    name: str = ""
    workdir: Path | None = None
    keep: int = 1
    examples: int = 0
    writes: bool = False
    tensorboard: bool = False
    observe: Callable[[TrainState], dict[str, float]] | None = None
    validation: Validation | None = None

    @property
    def prefix(self) -> str:
        """What its lines begin with."""
        return f"{self.name}: " if self.name else ""


class Fitted(NamedTuple):
    """The state a loop ended with, and whether nothing is left to do."""

    state: TrainState
    finished: bool


def jitted(step: Callable[..., Any], *constants: Any, sharding: Any = None) -> Advance:
    """A pure step, compiled with its state donated, as `fit` calls it.

    Args:
      step: state x batch x constants -> state, metrics.
      constants: what every step is given besides; arguments, so that it is no part of the program.
      sharding: of the state.
    """
    options: dict[str, Any] = {} if sharding is None else {"out_shardings": (sharding, None)}
    # Donated: else the state before and after a step would stand in memory at once.
    compiled = jax.jit(step, donate_argnums=0, **options)
    return lambda number, state, batch: compiled(state, batch, *constants)


def fit(
    loop: Loop,
    state: TrainState,
    advance: Advance,
    iterator: Any,
    *,
    place: Callable[[Any], Any] = lambda batch: batch,
    report: Report = print,
    stop_at: int | None = None,
) -> Fitted:
    """Trains to the last step of `loop`, from the newest checkpoint if there is one.

    Args:
      loop: what it is.
      state: fresh; the steps donate it.
      advance: number of the step x state x batch -> state and metrics, `TOTAL` among them.
      iterator: of batches; a checkpointable one of grain where `loop` has a workdir.
      place: puts a batch on the devices.
      report: takes the progress lines.
      stop_at: stop after this step, with a checkpoint (a slice of a longer run).

    Raises:
      FloatingPointError: a loss that is not finite.
      KeyboardInterrupt: Ctrl-C; its message names the step and the checkpoint that stands.
      OSError: a checkpoint could not be written.
      ValueError: a corrupt checkpoint.
    """
    checkpoints = checkpoint.Checkpoints(loop.workdir, loop.keep) if loop.workdir else None
    writer = None
    try:
        first = checkpoints.latest_step if checkpoints else None
        if checkpoints and first:
            state = checkpoints.restore(state, iterator)
            report(f"{loop.prefix}resumed from step {first}")
        if loop.writes and loop.workdir:
            writer = writers.MetricsWriter(loop.workdir, first or 0, tensorboard=loop.tensorboard)
        # After the writer has dropped the rows behind the checkpoint: the keeper counts the rest.
        keeper = _Keeper(loop, first or 0)
        steps = _Steps(loop, checkpoints, writer, keeper, report)
        return steps.run(state, advance, iterator, place, stop_at)
    finally:
        if writer:
            writer.close()
        if checkpoints:
            checkpoints.close()


@dataclasses.dataclass
class _Steps:
    """The body of `fit`."""

    loop: Loop
    checkpoints: checkpoint.Checkpoints | None
    writer: writers.MetricsWriter | None
    keeper: "_Keeper"
    report: Report

    def run(
        self, state: TrainState, advance: Advance, iterator: Any, place: Any, stop_at: int | None
    ) -> Fitted:
        steps, first = self.loop.section.steps, int(state.step)
        last, number = min(steps, stop_at or steps), first
        progress = Progress(self.loop, first, self.report)
        pending: tuple[int, Any] | None = None
        try:
            for number in range(first + 1, last + 1):
                if self.keeper.exhausted:
                    break
                state, metrics = advance(number, state, place(next(iterator)))
                # The step before is read only now, while this one runs.
                if pending is not None:
                    progress.add(jax.device_get(pending[1]), pending[0])
                pending = (number, metrics)
                due = self._due(number, last)
                # A checkpoint is only written once its own step is known to be finite.
                if any(due):
                    progress.add(jax.device_get(metrics), number)
                    pending = None
                self._look(state, number, due, progress, iterator)
        except KeyboardInterrupt as interrupt:
            raise self._interrupted(number, last) from interrupt
        # Not the newest state, whose validation was worse.
        if self.keeper.exhausted:
            return Fitted(self.keeper.best_state(state, iterator), finished=True)
        return Fitted(state, finished=int(state.step) >= steps)

    def _due(self, number: int, last: int) -> tuple[bool, bool, bool]:
        """Whether a step is reported, validated and saved."""
        section, validation = self.loop.section, self.loop.validation
        # The last step of a slice too, so that whoever stops a run sees where it stands.
        logs = number % section.log_every == 0 or number == last
        validates = validation is not None and number % validation.every == 0
        saves = bool(section.checkpoint_every) and number % section.checkpoint_every == 0
        return logs, validates, self.checkpoints is not None and (saves or number == last)

    def _look(
        self,
        state: TrainState,
        number: int,
        due: tuple[bool, bool, bool],
        progress: "Progress",
        iterator: Any,
    ) -> None:
        logs, validates, saves = due
        row: dict[str, float] = {}
        if logs:
            row |= progress.flush(number)
            row |= self.loop.observe(state) if self.loop.observe else {}
        if validates and self.loop.validation:
            begun = time.perf_counter()  # validation must not look like slow steps
            found = self.loop.validation.losses(state)
            row |= found
            self.keeper.add(found[VALIDATED], state, iterator)
            self.report(f"{self.loop.prefix}step {number}  validation {found[VALIDATED]:.3f}")
            progress.pause(time.perf_counter() - begun)
        if row and self.writer:
            self.writer.write(number, row)
        # After the row: a resumed run finds the rows of all steps up to its checkpoint.
        if self.checkpoints and (saves or self.keeper.exhausted):
            self.checkpoints.save(state, iterator)

    def _interrupted(self, number: int, last: int) -> KeyboardInterrupt:
        if self.checkpoints is None:
            return KeyboardInterrupt()  # nothing of this loop stands; the command says the rest
        newest = self.checkpoints.latest_step
        stands = (
            f"the checkpoint of step {newest} stands, and" if newest else "no checkpoint yet, so"
        )
        return KeyboardInterrupt(
            f"{self.loop.prefix}interrupted at step {number}/{last}; {stands} the same command "
            f"{'resumes there' if newest else 'starts anew'}"
        )


class _Keeper:
    """Remembers the best validation of a loop, keeps its checkpoint, and counts those after it."""

    def __init__(self, loop: Loop, first: int) -> None:
        self._validation, self._path = loop.validation, loop.path
        self._folder = loop.workdir / BEST if loop.workdir else None
        self._best, self._since = float("inf"), 0  # the lowest total, and validations since then
        if self._validation and self._folder and first:
            self._recall(self._folder.parent / "metrics.jsonl", first)
        elif self._folder and self._folder.is_dir():
            shutil.rmtree(self._folder)  # of a run that began here before, and begins anew

    def _recall(self, path: Path, first: int) -> None:
        """Counts as the run did before it was stopped: from what it wrote down."""
        rows = path.read_text().splitlines() if path.is_file() else []
        for row in map(json.loads, rows):
            if VALIDATED in row and row["step"] <= first:
                self._count(row[VALIDATED])

    def _count(self, total: float | None) -> bool:
        """Whether a total is the best so far."""
        if total is not None and total < self._best:
            self._best, self._since = total, 0
            return True
        self._since += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether patience is at its end."""
        patience = self._validation.patience if self._validation else 0
        return bool(patience) and self._since >= patience

    def add(self, total: float, state: TrainState, iterator: Any) -> None:
        """Takes a validation; keeps the state where the run may end with it."""
        if not np.isfinite(total):
            raise FloatingPointError(
                f"step {int(state.step)}: {VALIDATED} is not finite; lower "
                f"{self._path}.learning_rate"
            )
        # As metrics.jsonl holds it, so that a resumed run compares the same numbers.
        better = self._count(float(f"{total:.6g}"))
        # Without patience a run ends with its last state, and a copy of the best would only cost.
        if better and self._folder and self._validation and self._validation.patience:
            self._checkpoints(lambda best: self._save(best, state, iterator))

    @staticmethod
    def _save(best: checkpoint.Checkpoints, state: TrainState, iterator: Any) -> None:
        # A run that was cut off has been here before: a later best one will come again.
        if (best.latest_step or 0) < int(state.step):
            best.save(state, iterator)

    def best_state(self, state: TrainState, iterator: Any) -> TrainState:
        """The state that a run ends with whose patience is at its end."""
        return self._checkpoints(lambda best: best.restore(state, iterator))

    def _checkpoints(self, use: Callable[[checkpoint.Checkpoints], Any]) -> Any:
        assert self._folder is not None, "patience needs a workdir"
        best = checkpoint.Checkpoints(self._folder, keep=1)
        try:
            return use(best)
        finally:
            best.close()


@dataclasses.dataclass
class Progress:
    """Turns the metrics of single steps into means, rates and one printed line an interval."""

    loop: Loop
    first_step: int
    report: Report

    def __post_init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._rate = optimizer.learning_rate(self.loop.section)
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, metrics: dict[str, Any], step: int) -> None:
        """Takes one step's metrics.

        Raises:
          FloatingPointError: a loss that is not finite.
        """
        values = {name: float(value) for name, value in metrics.items()}
        if not np.isfinite(values[TOTAL]):
            bad = [name for name, value in values.items() if not np.isfinite(value)]
            stands = "the last checkpoint is untouched. " if self.loop.workdir else ""
            rate = f"{self.loop.path}.{self.loop.rate_field}"
            raise FloatingPointError(
                f"{f'{self.loop.name} ' if self.loop.name else ''}step {step}: {', '.join(bad)} "
                f"is not finite; {stands}Lower {rate} or {self.loop.path}.clip_norm and resume"
            )
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def pause(self, seconds: float) -> None:
        """Leaves time out of the rates that was not spent on steps."""
        self._start, self._last = self._start + seconds, self._last + seconds

    def flush(self, step: int) -> dict[str, float]:
        """Means since the last flush, with examples/s; prints the progress line."""
        now = time.perf_counter()
        means = {name: total / self._count for name, total in self._sums.items()}
        step_seconds = (now - self._last) / self._count
        last = self.loop.section.steps
        # Over the whole slice: the pace of one interval jumps.
        left = (last - step) * (now - self._start) / max(step - self.first_step, 1)
        losses = {name[5:]: value for name, value in means.items() if name.startswith("loss/")}
        if len(losses) == 1:  # of one loss the total says all
            losses = {"loss": means[TOTAL]}
        printed = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        place, time_left = f"{self.loop.prefix}step {step}/{last}", f"{left / 60:.0f} min left"
        if self.loop.examples:
            means["examples_per_second"] = self.loop.examples / step_seconds
            pace = f"{means['examples_per_second']:.0f} examples/s"
            self.report(f"{place}  {pace}  {time_left}  {printed}")
        else:
            self.report(f"{place}  {printed}  {time_left}")
        if self.loop.writes:
            means["learning_rate"] = float(np.asarray(self._rate(step)))
        self._last, self._sums, self._count = now, {}, 0
        return means
