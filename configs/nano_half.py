"""nano_half: nano with two thirds of the width, so about half the weights behind the stem.

Command:  python -m mmllm.train --config=configs/nano_half.py, after `mmllm data build all`
Hardware: 2 CPU cores, as configs/nano.py, whose cache it shares.
Time:     an hour, once nano's cache is there.

The float start of an ablation row: four bits at half the parameters against two bits at all.
"""

from ml_collections import ConfigDict

from configs import nano


def get_config() -> ConfigDict:
    cfg = nano.get_config()
    cfg.name = "nano_half"
    cfg.model.width = 128
    cfg.model.heads = 4
    return cfg
