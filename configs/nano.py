"""nano: the float model, trained on two CPU cores; what ships is quantized from it, quant/mixed.py.

Command:  mmllm data build all && python -m mmllm.train --config=configs/nano.py
Hardware: 2 CPU cores, 10 GiB of memory, 8 GB of disk for cached features.
Time:     20 min to cache, 48 to tune the backbone, 7 to cache again, 76 to train, 4 to align the
          text tower.
Scores:   style-out R@1 .678, captions exact .472, CER .054, composites .575, easy_vqa .988.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    cfg = base.get_config()
    cfg.name = "nano"
    cfg.tune.steps = 2_400
    cfg.train.steps = 5_000
    cfg.align.steps = 1_500
    return cfg
