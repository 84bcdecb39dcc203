"""A bundle small enough to make in a second: random weights over a real vocabulary."""

import string
from pathlib import Path

import jax
import numpy as np

from mmllm import bundle, models
from mmllm.common import config as config_lib
from mmllm.data import tokenizer

CHARSET = string.ascii_letters + string.digits + " "
CONFIG = config_lib.ModelConfig(
    backbone="patch",
    level="7x7x320",
    patch=8,
    merge=2,
    image_side=32,
    line_height=8,
    line_width=64,
    line_stride=4,
    width=32,
    heads=4,
    kv_heads=2,
    mlp_ratio=2,
    encoder_blocks=1,
    decoder_blocks=2,
    text_blocks=1,
    head_width=32,
    embed_dim=16,
    vocab_size=400,
    max_text=40,
    charset_size=len(CHARSET),
    feature_dropout=0.0,
)


def train_tokenizer(path: Path) -> Path:
    """Trains the vocabulary of `CONFIG` on a few hundred short phrases."""
    colours = "red green blue yellow black white orange purple grey brown".split()
    things = "bus cat dog house tree circle square triangle apple car boat star".split()
    things += "umbrella elephant mountain keyboard violin zeppelin jacket quilt fox pyramid".split()
    texts = [f"a {colour} {thing}" for colour in colours for thing in things]
    texts += [f"how many {thing}s are there?" for thing in things]
    texts += [f"what colour is the {thing}?" for thing in things]
    tokenizer.train(texts, path, vocab_size=CONFIG.vocab_size)
    return path


def make(folder: Path, seed: int = 0) -> Path:
    """Writes a whole bundle and returns its folder."""
    path = train_tokenizer(folder.parent / f"{folder.name}.tokenizer.model")
    shapes = jax.eval_shape(lambda: models.init_params(CONFIG, jax.random.key(0)))
    rng = np.random.default_rng(seed)
    return bundle.save(
        folder,
        params=jax.tree.map(lambda leaf: rng.normal(0.1, 0.3, leaf.shape), shapes),
        config=CONFIG,
        tokenizer_path=path,
        charset=CHARSET,
        languages=("en", "de"),
        scores={"caption": {"exact match": 0.5}, "lines": {"CER": None}},
        data=[{"name": "emoji", "hash": "ab" * 32, "licence": "CC BY 4.0"}],
        pretrained=[{"name": "backbone", "version": "1.0", "sha256": "cd" * 32, "licence": "MIT"}],
    )
