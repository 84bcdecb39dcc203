"""The whole order of a training run: data, state, restore, steps, metrics, checkpoints."""

import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmllm.common import config as config_lib
from mmllm.common import mesh as mesh_lib
from mmllm.common import writers
from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.data import pipeline
from mmllm.quant import rules as rules_lib
from mmllm.quant.rules import Rule
from mmllm.train import checkpoint, optimizer, stages
from mmllm.train import state as state_lib
from mmllm.train import step as step_lib

Report = Callable[[str], None]


@dataclasses.dataclass
class Progress:
    """Turns the metrics of single steps into means, rates and one printed line an interval."""

    config: Config
    first_step: int
    report: Report

    def __post_init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, metrics: dict[str, Any], step: int) -> None:
        """Takes one step's metrics.

        Raises:
          FloatingPointError: a loss that is not finite.
        """
        values = {name: float(value) for name, value in metrics.items()}
        if not np.isfinite(values["loss/total"]):
            bad = [name for name, value in values.items() if not np.isfinite(value)]
            raise FloatingPointError(
                f"step {step}: {', '.join(bad)} is not finite; the last checkpoint is untouched. "
                "Lower train.learning_rate or train.clip_norm and resume"
            )
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def flush(self, step: int) -> dict[str, float]:
        """Means since the last flush, with examples/s; prints the progress line."""
        now = time.perf_counter()
        means = {name: total / self._count for name, total in self._sums.items()}
        step_seconds = (now - self._last) / self._count
        means["examples_per_second"] = self.config.mix.total / step_seconds
        means["learning_rate"] = float(np.asarray(optimizer.learning_rate(self.config.train)(step)))
        last = self.config.train.steps
        left = (last - step) * (now - self._start) / max(step - self.first_step, 1)
        losses = "  ".join(
            f"{name[5:]} {value:.3f}" for name, value in means.items() if name.startswith("loss/")
        )
        self.report(
            f"step {step}/{last}  {means['examples_per_second']:.0f} examples/s  "
            f"{left / 60:.0f} min left  {losses}"
        )
        self._last, self._sums, self._count = now, {}, 0
        return means


def _place(batch: pipeline.Batch, config: Config, mesh: Any) -> Any:
    """Puts a batch on the mesh, rows split over the data devices where they divide."""
    split, whole = mesh_lib.batch_sharding(mesh), jax.sharding.NamedSharding(mesh, jax.P())
    return {
        name: jax.device_put(value, split if len(value) % config.train.mesh_data == 0 else whole)
        for name, value in batch.items()
    }


def train(
    config: Config,
    arrays: pipeline.TrainingArrays,
    workdir: Path,
    *,
    start: Params | None = None,
    teacher: Params | None = None,
    stop_at: int | None = None,
    tensorboard: bool = False,
    report: Report = print,
) -> state_lib.TrainState:
    """Trains to `config.train.steps`, from the newest checkpoint of `workdir` if there is one.

    Args:
      config: the experiment.
      arrays: what `train.cache` prepared.
      workdir: holds checkpoints, metrics.jsonl and config.json.
      start: parameters to begin with, see `state.init_state`.
      teacher: {"model", "prototypes"} of a float run; the run is then that of its quantized student.
      stop_at: stop early after this step, with a checkpoint (a slice of a longer run).
      tensorboard: also write TensorBoard events through clu.
      report: takes the progress lines.

    Returns:
      The final state.

    Raises:
      FloatingPointError: a loss that is not finite.
      KeyboardInterrupt: Ctrl-C; its message names the step and the checkpoint that stands.
      OSError: a checkpoint could not be written.
      ValueError: `workdir` holds a run of another config, or a corrupt checkpoint.
    """
    claim(workdir, config)
    mesh = mesh_lib.make_mesh(config.train.mesh_data, config.train.mesh_model)
    prototype_sentences = np.asarray(arrays.texts.prototype_sentences, np.float32)
    watch = None
    with jax.set_mesh(mesh):
        if teacher is None:
            planned, held = None, (prototype_sentences,)
            state = state_lib.init_state(config, len(prototype_sentences), start)
        else:
            planned, held = stages.trained(stages.plan(config)), (prototype_sentences, teacher)
            state = state_lib.init_student(config, planned, teacher)
            watch = stages.Watch(planned, state.params)
        sharding = mesh_lib.state_sharding(mesh, state)
        state = jax.device_put(state, sharding)
        held = jax.device_put(held, jax.sharding.NamedSharding(mesh, jax.P()))
        iterator = pipeline.batches(config, arrays)
        checkpoints = checkpoint.Checkpoints(workdir, config.train.keep_checkpoints)
        first = checkpoints.latest_step or 0
        if first:
            state = checkpoints.restore(state, iterator)
            report(f"resumed from step {first}")
        writer = writers.MetricsWriter(workdir, first, tensorboard=tensorboard)
        advance = _advance(config, planned, held, sharding)
        try:
            return _run(
                config,
                state,
                iterator,
                advance,
                mesh,
                checkpoints,
                writer,
                watch,
                stop_at,
                report,
            )
        finally:
            writer.close()
            checkpoints.close()


def _advance(
    config: Config, planned: Mapping[str, Rule] | None, held: tuple[Any, ...], sharding: Any
) -> Callable[..., tuple[state_lib.TrainState, step_lib.Metrics]]:
    """What takes the number of a step, the state and a batch: the jitted step of that number.

    Args:
      config: the experiment.
      planned: quantized weights of a student; None for a float run.
      held: what every step is given besides.
      sharding: of the state.
    """
    jitted = functools.partial(jax.jit, donate_argnums=0, out_shardings=(sharding, None))
    if planned is None:
        step = jitted(step_lib.make_step(config))
        return lambda number, state, batch: step(state, batch, *held)
    rules = rules_lib.parse(config.quant.rules)
    step, whole = jitted(step_lib.make_taught_step(config, planned, rules)), None
    begins = stages.float_steps(config)
    if begins:
        whole = jitted(step_lib.make_taught_step(config, {}, ()))

    def advance(number: int, state: state_lib.TrainState, batch: Any) -> Any:
        if whole and number <= begins:
            return whole(state, batch, *held)
        if whole and number == begins + 1:
            state = jax.device_put(state_lib.begin_rounding(config, planned, state), sharding)
        return step(state, batch, *held)

    return advance


def _run(
    config: Config,
    state: state_lib.TrainState,
    iterator: Any,
    advance: Callable[..., Any],
    mesh: Any,
    checkpoints: checkpoint.Checkpoints,
    writer: writers.MetricsWriter,
    watch: stages.Watch | None,
    stop_at: int | None,
    report: Report,
) -> state_lib.TrainState:
    first, last = int(state.step), min(config.train.steps, stop_at or config.train.steps)
    progress = Progress(config, first, report)
    pending: tuple[int, Any] | None = None
    number = first
    try:
        for number in range(first + 1, last + 1):
            state, metrics = advance(number, state, _place(next(iterator), config, mesh))
            # The step before is read only now, while this one runs.
            if pending is not None:
                progress.add(jax.device_get(pending[1]), pending[0])
            pending = (number, metrics)
            logs = number % config.train.log_every == 0 or number == last
            saves = number % config.train.checkpoint_every == 0 or number == last
            # A checkpoint is only written once its own step is known to be finite.
            if logs or saves:
                progress.add(jax.device_get(metrics), number)
                pending = None
            if logs:
                moved = watch.look(jax.device_get(state.params)) if watch else {}
                writer.write(number, progress.flush(number) | moved)
            if saves:
                checkpoints.save(state, iterator)
    except KeyboardInterrupt as interrupt:
        kept = checkpoints.latest_step
        stands = f"the checkpoint of step {kept} stands, and" if kept else "no checkpoint yet, so"
        raise KeyboardInterrupt(
            f"interrupted at step {number}/{last}; {stands} the same command "
            f"{'resumes there' if kept else 'starts anew'}"
        ) from interrupt
    return state


def claim(workdir: Path, config: Config) -> None:
    """Binds a work folder to one config; resuming with another one is refused.

    Raises:
      ValueError: `workdir` holds a run of another config.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "config.json"
    values = config_lib.to_dict(config)
    if path.exists():
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
        return
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
    partial.replace(path)
