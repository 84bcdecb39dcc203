"""mixed: the encoder at two bits, the rest of the transformer at four, the stem at four and eight.

Command:  python -m mmllm.train --config=configs/quant/mixed.py, after configs/nano.py
Hardware: 2 CPU cores.
Time:     16 minutes, beside other work.
Scores:   in LOG.md; the search falls short, so it does not ship.
"""

from ml_collections import ConfigDict

from configs.quant import int2

RULES = (
    r"stem/block_[0-3]/.* float",
    r"stem/block_1[234]/(expand|project)/kernel int4",
    r"stem/.*/(expand|project)/kernel int8",
    r"stem/.* float",
    r"encoder/block_.*kernel int2",
    r"embed/table int4",
    r".*/kernel int4",
)


def get_config() -> ConfigDict:
    cfg = int2.get_config()
    cfg.name = "nano_mixed"
    cfg.quant.rules = RULES
    cfg.train.steps = 2_000
    cfg.train.learning_rate = 5e-4
    cfg.train.warmup_steps = 100
    return cfg
