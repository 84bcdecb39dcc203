"""nano: the model that ships in the package, trained on two CPU cores.

Command:  mmllm data build all && python -m mmllm.train --config=configs/nano.py
Hardware: 2 CPU cores, 10 GiB of memory, 8 GB of disk for cached features.
Time:     20 min to cache, 48 to tune the stem, 7 to cache again, 76 to train, 4 to align the
          text tower.
Scores:   style-out R@1 .670, captions exact .451, CER .057, composites .567, easy_vqa .990; all
          in README.md, of the weights that ship, trained with loss.spoken_noise 0.5. What 2.0
          changes stands in LOG.md.
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
