"""The float nano that the ablations start from, regained from the bundle it once shipped as.

Command:  python -m experiments.training.float_start
Hardware: 2 CPU cores; needs the built corpora.
Time:     35 minutes to cache backbone features, 5 to fit the caption prototypes.
Writes:   <data folder>/runs/nano, as configs/nano.py would in two hours and a half; a run of that
          name that was trained here stays.

nano_start/ is the third nano, trained with loss.spoken_noise .5 where configs/nano.py now has 2.
"""

from pathlib import Path

from configs import nano
from experiments import rows as rows_lib
from mmllm.common import config as config_lib
from mmllm.common import paths
from mmllm.common.config import Config
from mmllm.train import checkpoint
from mmllm.train import regain as regain_lib

BUNDLE = Path(__file__).parents[1] / "nano_start"


def regain() -> Path:
    """The folder of the run."""
    config = config_lib.resolve(nano.get_config())
    workdir = paths.data_dir() / "runs" / config.name
    with rows_lib.lock(workdir.with_suffix(".lock")):
        return _regained(config, workdir)


def _regained(config: Config, workdir: Path) -> Path:
    if checkpoint.latest_step(workdir / checkpoint.FOLDER):
        return workdir
    return regain_lib.regain(BUNDLE, config, workdir)


if __name__ == "__main__":
    print(regain())
