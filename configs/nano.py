"""nano: the model that ships in the package, trained on two CPU cores.

Command:  mmllm data build all && python -m mmllm.train --config=configs/nano.py
Hardware: 2 CPU cores, 8 GiB of memory.
Time:     see LOG.md.
Scores:   the score table in README.md.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    cfg = base.get_config()
    cfg.name = "nano"
    cfg.tune.steps = 1_200
    cfg.train.steps = 4_700
    cfg.align.steps = 1_500
    return cfg
