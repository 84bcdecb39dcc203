"""`python -m mmllm.train --config=configs/nano.py`: flags, then the phases of `train.pipeline`."""

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

    from mmllm.train import pipeline, run

    this = run.Run(
        config=config,
        workdir=Path(_WORKDIR.value) if _WORKDIR.value else paths.data_dir() / "runs" / config.name,
        report=_say,
        stop_at=_STOP_AT.value,
        tensorboard=_TENSORBOARD.value,
    )
    if _SYNTHETIC.value:
        pipeline.train_synthetic(this)
    elif _PREPARE_ONLY.value:
        pipeline.check(this)
        pipeline.prepare_only(this)
    else:
        pipeline.train(this)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=_parse_flags)
