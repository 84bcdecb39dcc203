"""tiny: a model that trains in seconds on generated arrays; what the tests and smoke runs use.

Command:  python -m mmllm.train --config=configs/tiny.py --synthetic
Hardware: 1 CPU core.
Time:     under a minute.
Scores:   none worth reading.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    cfg = base.get_config()
    cfg.name = "tiny"
    cfg.model.backbone = "patch"
    cfg.model.image_side = 32
    cfg.model.patch = 8
    cfg.model.line_height = 8
    cfg.model.line_width = 64
    cfg.model.width = 32
    cfg.model.heads = 4
    cfg.model.kv_heads = 2
    cfg.model.encoder_blocks = 1
    cfg.model.decoder_blocks = 1
    cfg.model.head_width = 32
    cfg.model.embed_dim = 32
    cfg.model.vocab_size = 420
    cfg.model.max_text = 40
    cfg.data.line_chars = 8
    cfg.data.vocabulary = "tiny"
    cfg.mix.update(emoji=4.0, stamps=2.0, composites=2.0, easy_vqa=2.0)
    cfg.batch.update(captions=8, names=4, spoken=2, questions=8, lines=8, texts=8)
    cfg.train.steps = 20
    cfg.train.warmup_steps = 4
    cfg.train.log_every = 5
    cfg.train.checkpoint_every = 10
    cfg.train.validate_every = 0
    return cfg
