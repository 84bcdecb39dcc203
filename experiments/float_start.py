"""The float nano that students start from, regained from the bundle it shipped as.

Command:  python -m experiments.float_start
Hardware: 2 CPU cores; needs the built corpora.
Time:     30 minutes to cache stem cells, one to fit the caption bank.
Writes:   <data folder>/runs/nano, as configs/nano.py would in two hours and a half; a run of that
          name that was trained here stays.
"""

from pathlib import Path

from configs import nano
from experiments import runner
from mmllm.common import config as config_lib
from mmllm.common import paths
from mmllm.common.config import Config
from mmllm.export import to_run
from mmllm.train import checkpoint

BUNDLE = Path(__file__).parent / "nano_float"


def regain() -> Path:
    """The folder of the run."""
    config = config_lib.resolve(nano.get_config())
    workdir = paths.data_dir() / "runs" / config.name
    with runner.lock(workdir.with_suffix(".lock")):
        return _regained(config, workdir)


def _regained(config: Config, workdir: Path) -> Path:
    if checkpoint.latest_step(workdir / checkpoint.FOLDER):
        return workdir
    return to_run.regain(BUNDLE, config, workdir)


if __name__ == "__main__":
    print(regain())
