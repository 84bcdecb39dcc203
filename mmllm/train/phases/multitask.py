"""Phase 5, the run itself: captions, names, questions, lines and texts in every step.

Reads `run.arrays` and, for a quantized student, the run that `quant.start` names; leaves
checkpoints, metrics.jsonl, the vocabulary and the trained blocks of the backbone in the run's
folder.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import optax

from mmllm.common import mesh as mesh_lib
from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.data import pipeline
from mmllm.train import checkpoint, fit, optimizer, validation
from mmllm.train import run as run_lib
from mmllm.train import state as state_lib
from mmllm.train import step as step_lib
from mmllm.train.backbone import features as features_lib
from mmllm.train.phases import cache_features, prepare
from mmllm.train.run import Run
from mmllm.train.student import calibrate, monitor, plan
from mmllm.train.student import start as start_lib
from mmllm.train.text import prototypes as prototypes_lib


def run(run: Run) -> None:
    """Leaves the checkpoint of the last step; `run.trained` says whether it has come to it."""
    config, arrays = run.config, run.arrays
    assert arrays is not None, "cache_features runs first"
    start = None
    if run.tables is not None:  # not on generated arrays
        prepare.keep_files(config, run.workdir)
        cache_features.keep_blocks(config, run.tables, run.workdir)
        pictures = config.train.statistics_pictures
        if (plain := arrays.plain_features) is not None:
            affine = features_lib.channel_statistics(plain, pictures)
            start = {"model": {"feature_affine": affine}}
    fitted = train(
        config,
        arrays,
        run.workdir,
        start=start,
        teacher=teacher_of(config, arrays),
        unseen=run.validation,
        stop_at=run.stop_at,
        tensorboard=run.tensorboard,
        report=run.report,
    )
    run.trained = int(fitted.step) == config.train.steps


def teacher_of(config: Config, arrays: pipeline.TrainingArrays) -> Params | None:
    """The run that teaches a student, with the ranges of its activations; None for a float run."""
    if not config.quant.start:
        return None
    return calibrate.calibrated(config, start_lib.load(start_lib.folder(config)), arrays)


def train(
    config: Config,
    arrays: pipeline.TrainingArrays,
    workdir: Path,
    *,
    start: Params | None = None,
    teacher: Params | None = None,
    unseen: pipeline.TrainingArrays | None = None,
    stop_at: int | None = None,
    tensorboard: bool = False,
    report: run_lib.Report = print,
) -> state_lib.TrainState:
    """Trains to `config.train.steps`, from the newest checkpoint of `workdir` if there is one.

    Args:
      config: the experiment.
      arrays: what `cache_features` left.
      workdir: holds checkpoints, metrics.jsonl and config.json.
      start: parameters to begin with, see `state.init_params`.
      teacher: {"model", "prototypes"} of a float run; the run is then that of its student.
      unseen: arrays of the "val" splits, for `train.validate_every`.
      stop_at: stop early after this step, with a checkpoint (a slice of a longer run).
      tensorboard: also write TensorBoard events through clu.
      report: takes the progress lines.

    Returns:
      The final state; with `train.patience` at its end the best one, under the last step's number.

    Raises:
      FloatingPointError: a loss that is not finite.
      KeyboardInterrupt: Ctrl-C; its message names the step and the checkpoint that stands.
      OSError: a checkpoint could not be written.
      ValueError: `workdir` holds a run of another config, or a corrupt checkpoint.
    """
    run_lib.claim(workdir, config)
    section = config.train
    planned, tx, state = _begin(config, len(arrays.texts.prototype_sentences), start, teacher)
    iterator = pipeline.batches(config, arrays)
    # One device or many: the same code, on a mesh of one by one.
    mesh = mesh_lib.make_mesh(section.mesh_data, section.mesh_model)
    sharding = mesh_lib.state_sharding(mesh, state)
    with jax.set_mesh(mesh):
        state = jax.device_put(state, sharding)
        # On every device whole: batches are split over them, and each compares with all captions.
        constants = prototypes_lib.on_device(config, arrays.texts.prototype_sentences), teacher
        constants = jax.device_put(constants, jax.sharding.NamedSharding(mesh, jax.P()))
        place = functools.partial(_place, mesh=mesh, data=section.mesh_data)
        advance = _advance(config, tx, planned, constants, sharding)
        observe = _observed(planned, state.params) if planned.weights else None
        validates = validation.of(config, unseen, place, planned, teacher) if unseen else None
        loop = fit.Loop(
            section=section,
            path="train",
            workdir=workdir,
            keep=section.keep_checkpoints,
            examples=config.batch.total,
            writes=True,
            tensorboard=tensorboard,
            observe=observe,
            validation=validates,
        )
        fitted = fit.fit(
            loop, state, advance, iterator, place=place, report=report, stop_at=stop_at
        )
        if fitted.finished and int(fitted.state.step) < section.steps:
            return _ended_early(fitted.state, iterator, workdir, config)
        return fitted.state


def _begin(
    config: Config, captions: int, start: Params | None, teacher: Params | None
) -> tuple[plan.Plan, optax.GradientTransformation, state_lib.TrainState]:
    """What is rounded, the optimizer and the first state: all that sets a student apart."""
    if teacher is None:
        tx = optimizer.make(config.train)
        return plan.FLOAT, tx, state_lib.fresh(state_lib.init_params(config, captions, start), tx)
    planned, tx = plan.trained(config), optimizer.make(config.train, config.quant.scale_rate)
    return planned, tx, state_lib.init_student(config, planned.weights, teacher, tx)


def float_steps(config: Config) -> int:
    """Steps of a quantized run that train in float, before those that round."""
    return config.train.steps - max(1, round(config.quant.share * config.train.steps))


def _advance(
    config: Config,
    tx: optax.GradientTransformation,
    planned: plan.Plan,
    constants: tuple[Any, Any],
    sharding: Any,
) -> fit.Advance:
    """The jitted step of each number: a student's may round only at the end.

    Args:
      config: the experiment.
      tx: the optimizer.
      planned: what a student rounds.
      constants: sentences of the prototypes, and the teacher or None.
      sharding: of the state.
    """
    step = step_lib.make_step(config, tx, planned)
    rounds = fit.jitted(step, *constants, sharding=sharding)
    begins = 0 if constants[1] is None else float_steps(config)
    if not begins:  # a second program would only be compiled
        return rounds
    floats = fit.jitted(step_lib.make_step(config, tx), *constants, sharding=sharding)

    def advance(number: int, state: state_lib.TrainState, batch: Any) -> Any:
        if number <= begins:
            return floats(number, state, batch)
        if number == begins + 1:  # also where a run resumes at just this step
            state = state_lib.begin_rounding(config, planned.weights, state)
            state = jax.device_put(state, sharding)
        return rounds(number, state, batch)

    return advance


def _observed(planned: plan.Plan, params: Params) -> Any:
    """State -> flips of codes and drift of scales; from the first state on, whatever is resumed."""
    watch = monitor.Monitor(planned.weights, params)
    return lambda state: watch.look(jax.device_get(state.params))


def _place(batch: pipeline.Batch, mesh: Any, data: int) -> Any:
    """Puts a batch on the mesh, rows split over the data devices where they divide."""
    split, whole = mesh_lib.batch_sharding(mesh), jax.sharding.NamedSharding(mesh, jax.P())
    return {
        name: jax.device_put(value, split if len(value) % data == 0 else whole)
        for name, value in batch.items()
    }


def _ended_early(
    state: state_lib.TrainState, iterator: Any, workdir: Path, config: Config
) -> state_lib.TrainState:
    """Keeps the best state as that of the last step, so that all readers find a whole run."""
    run_lib.summarize(workdir, {"best_step": int(state.step)})
    state = state.replace(step=jax.numpy.full_like(state.step, config.train.steps))
    checkpoints = checkpoint.Checkpoints(workdir, config.train.keep_checkpoints)
    try:
        checkpoints.save(state, iterator)
    finally:
        checkpoints.close()
    return state
