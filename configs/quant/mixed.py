"""mixed: the model that ships: encoder at two bits, the rest of the transformer at four.

Command:  python -m mmllm.train --config=configs/quant/mixed.py, after configs/nano.py
Hardware: 2 CPU cores.
Time:     8 minutes to cache the features of the rounded backbone, 50 to train beside other work,
          5 to align the text tower.
Scores:   from its LiteRT file: style-out R@1 .672, captions exact .446, CER .051, composites .577,
          easy_vqa .987; all in README.md.

Of the backbone, three large late blocks bear four bits best; the first four, whose maps are large
and thin, would take longer to round than they save, and stay float. It starts as int2 does.
"""

from ml_collections import ConfigDict

from configs.quant import int2

RULES = (
    r"backbone/block_[0-3]/.* float",
    r"backbone/block_1[234]/(expand|project)/kernel int4 int8",
    r"backbone/.*/(expand|project)/kernel int8 int8",
    r"backbone/.* float",
    r"encoder/block_.*kernel int2 int8",
    r"embed/table int4 int8",
    r".*/kernel int4 int8",
)


def get_config() -> ConfigDict:
    cfg = int2.get_config()
    cfg.name = "nano_mixed"
    cfg.quant.rules = RULES
    cfg.train.steps = 2_000
    cfg.train.learning_rate = 5e-4
    cfg.train.warmup_steps = 100
    return cfg
