"""`python -m mmllm.train --config=configs/nano.py`: prepares the cache, trains and resumes."""

import sys
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from mmllm.common import config as config_lib
from mmllm.common import paths

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder; default <data folder>/runs/<name>.")
_STOP_AT = flags.DEFINE_integer(
    "stop_at", None, "Stop after this step, to be resumed later.", lower_bound=1
)
_SYNTHETIC = flags.DEFINE_bool("synthetic", False, "Train on small generated arrays (smoke runs).")
_TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "Also write TensorBoard events (needs clu).")
_PREPARE_ONLY = flags.DEFINE_bool("prepare_only", False, "Build the training cache and stop.")


def _say(line: str) -> None:
    print(line, flush=True)


def main(_: list[str]) -> None:
    """Runs the command; every failure a user can cause takes one line."""
    logging.set_verbosity(logging.FATAL)  # Orbax logs a traceback of every error it raises.
    try:
        _run()
    except (ValueError, OSError, FloatingPointError, ImportError, RuntimeError) as error:
        _fail(str(error))
    except KeyboardInterrupt as interrupt:
        message = str(interrupt) or "interrupted; what is finished stays, the same command goes on"
        _fail(message, EXIT_INTERRUPTED)


def _fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    print(f"mmllm.train: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _parse_flags(arguments: list[str]) -> list[str]:
    try:
        return flags.FLAGS(arguments)
    except (flags.Error, ValueError, TypeError, AttributeError, KeyError, OSError) as error:
        _fail(str(error))


def _run() -> None:
    config = config_lib.resolve(_CONFIG.value)  # before the slow imports

    from mmllm.data import synthetic
    from mmllm.train import align_text, cache, calibrate, loop, stages
    from mmllm.train import features as features_lib

    workdir = Path(_WORKDIR.value) if _WORKDIR.value else paths.data_dir() / "runs" / config.name
    begun = stages.start_folder(config) if config.quant.start else None  # before it is claimed
    if begun:
        stages.plan(config)
        stages.check_start(config, begun)
    if _SYNTHETIC.value:
        arrays, start = synthetic.training_arrays(config), None
    else:
        if not _PREPARE_ONLY.value:
            loop.claim(workdir, config)
            cache.claim(config, workdir)  # before anything is computed
        folder = cache.prepare(config, _say)
        if _PREPARE_ONLY.value:
            return
        arrays = cache.open_arrays(config, folder)
        start = {
            "model": {"feature_affine": features_lib.channel_statistics(arrays.emoji.features[0])}
        }
        cache.keep_files(config, folder, workdir)
    teacher = None
    if begun:
        teacher = calibrate.calibrated(config, stages.load_teacher(begun), arrays)
    state = loop.train(
        config,
        arrays,
        workdir,
        start=start,
        teacher=teacher,
        stop_at=_STOP_AT.value,
        tensorboard=_TENSORBOARD.value,
        report=_say,
    )
    if config.align.steps and int(state.step) == config.train.steps and not _SYNTHETIC.value:
        finished = {**(teacher or {}), **state.params}  # the prototypes is the teacher's
        planned = stages.trained(stages.plan(config)) if teacher else {}
        align_text.align(config, finished, arrays, workdir / align_text.TOWER, _say, planned)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=_parse_flags)
