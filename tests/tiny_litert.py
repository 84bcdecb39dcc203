"""A tiny bundle of packed weights with its LiteRT file, made once."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmllm import bundle
from mmllm.export import litert
from mmllm.quant import rules, tree
from tests import tiny_bundle

RULES = rules.parse(
    (
        r"embed/table int4 int8",
        r"(.*/mlp/down|line_reader/.*)/kernel int8 int8",
        r".*/kernel int2 int8",
    )
)
CONFIG = tiny_bundle.CONFIG


class Made(NamedTuple):
    folder: Path
    bundle: bundle.Bundle
    converted: bytes


def make(folder: Path) -> Made:
    """Makes it in a new folder of that name."""
    plain = bundle.load(tiny_bundle.make(folder.parent / "plain"))
    params = jax.tree.map(jnp.asarray, plain.params)
    planned = tree.plan(params, RULES)
    coded = tree.quantize(params, tree.init_scales(params, planned), planned)
    bundle.save(
        folder,
        params=plain.params,
        config=CONFIG,
        tokenizer_path=plain.tokenizer_path,
        charset=tiny_bundle.CHARSET,
        languages=("en", "de"),
        scores={},
        data=[],
        pretrained=[],
        coded=coded,
        rules=RULES,
    )
    loaded = bundle.load(folder)
    held = jax.tree.map(jnp.asarray, loaded.params)
    converted = litert.convert(litert.signatures(CONFIG, held))
    file = litert.put_codes(converted, loaded.coded, litert.folds(CONFIG, loaded.params))
    (folder / bundle.LITERT).write_bytes(file)
    bundle.add(folder, folder / bundle.LITERT)
    return Made(folder, bundle.load(folder), converted)
