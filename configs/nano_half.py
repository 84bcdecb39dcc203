"""nano_half: nano two thirds as wide; at four bits it has the bytes that nano has at two.

Command:  python -m mmllm.train --config=configs/nano_half.py, after training/float_start.py
Hardware: 2 CPU cores, as configs/nano.py, whose cache it shares.
Time:     65 minutes on one core.

The float start of an ablation row. It sees half the mixture and fewer steps than nano: less than a
fair share of the training.
"""

from ml_collections import ConfigDict

from configs import nano


def get_config() -> ConfigDict:
    cfg = nano.get_config()
    cfg.name = "nano_half"
    cfg.model.width = 128
    cfg.model.heads = 4
    cfg.batch.update(captions=13, names=64, spoken=32, questions=22, lines=20, texts=64)
    cfg.train.steps = 4_000
    return cfg
