"""mobile: the headline model, 100 M parameters; 29.6 MB once packed by quant/mobile_int2.py.

Command:  python -m mmllm.train --config=configs/mobile.py
Hardware: a GPU, or many resumed slices on a CPU.
Time:     unknown: it has not been trained yet; its shapes are tested.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    cfg = base.get_config()
    cfg.name = "mobile"
    cfg.model.level = "14x14x112"
    cfg.model.width = 640
    cfg.model.heads = 10
    cfg.model.kv_heads = 5
    cfg.model.mlp_ratio = 4
    cfg.model.encoder_blocks = 8
    cfg.model.decoder_blocks = 8
    cfg.model.text_blocks = 3
    cfg.model.head_width = 1024
    cfg.model.embed_dim = 512
    cfg.model.vocab_size = 16_000
    cfg.model.max_text = 128
    cfg.data.vocabulary = "mobile"
    cfg.train.learning_rate = 4e-4
    cfg.train.steps = 200_000
    cfg.train.warmup_steps = 2_000
    return cfg
