"""int2: transformer and embedding at two bits, heads at four, the backbone at eight.

Command:  python -m mmllm.train --config=configs/quant/int2.py, after configs/nano.py
Hardware: 2 CPU cores.
Time:     about 35 minutes; only its first 400 steps were run, see LOG.md.

It starts from the weights in experiments/nano_start, which experiments.training.float_start makes a
run again. To start from a nano of your own, add --config.quant.start=nano.
"""

from ml_collections import ConfigDict

from configs import nano

RULES = (
    r"backbone/block_[0-3]/.* float",
    r"backbone/.*/(expand|project)/kernel int8 int8",
    r"backbone/.* float",
    r"(picture_tokens|line_tokens|line_reader|image_embedding|embedding_token)/.*kernel int4 int8",
    r"text_tower/project/kernel int4 int8",
    r"embed/table int2 int8",
    r".*/kernel int2 int8",
)


def get_config() -> ConfigDict:
    cfg = nano.get_config()
    cfg.name = "nano_int2"
    cfg.quant.start = "nano@869d647a1dec"
    cfg.quant.rules = RULES
    cfg.train.steps = 1_500
    cfg.train.learning_rate = 1e-3
    cfg.train.warmup_steps = 100
    return cfg
