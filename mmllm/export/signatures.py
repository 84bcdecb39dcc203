"""Which functions an exported file has, with the shapes of their inputs. Knows models, not formats.

Every signature holds one row: a phone asks one thing at a time.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mmllm.common.config import ModelConfig
from mmllm.common.types import Params
from mmllm.models import attention
from mmllm.models import mmllm as model_lib

# Signatures of a file share their weights: a shorter prompt costs its graph alone, and saves the
# time of the padding.
PROMPT_LENGTHS = (16, 64)
"""Tokens of a prompt or a text; a runtime pads to the next one."""


@dataclasses.dataclass(frozen=True)
class Signature:
    """A function of an exported file, with the shapes and types of its inputs in order."""

    function: Callable[..., dict[str, jax.Array]]
    inputs: Mapping[str, tuple[tuple[int, ...], type]]


def lengths(config: ModelConfig) -> tuple[int, ...]:
    """Prompt lengths of a model's signatures: those of PROMPT_LENGTHS that fit, and `max_text`."""
    return tuple(sorted({*(n for n in PROMPT_LENGTHS if n < config.max_text), config.max_text}))


def signatures(config: ModelConfig, params: Params) -> dict[str, Signature]:
    """Every signature of a model, for one row.

    Names: encode_image, embed_image, read_lines, decode_step, and embed_text_T and prefill_T for
    each prompt length T. A cache is key_B and value_B for each decoder block B.

    Args:
      config: of the model; its inputs stay float here, a target rounds them in its own way.
      params: floats.
    """
    model = model_lib.build(config, exported=True)

    def call(method: str, *inputs: Any) -> Any:
        return model.apply({"params": params}, *inputs, method=method)

    def cached(cache: Any) -> dict[str, jax.Array]:
        return {
            f"{name}_{block}": getattr(pair, name)
            for block, pair in enumerate(cache)
            for name in ("key", "value")
        }

    def prefill(prefix: jax.Array, ids: jax.Array) -> dict[str, jax.Array]:
        logits, cache = call("prefill", prefix, ids)
        return {"logits": logits, **cached(cache)}

    def decode_step(ids: jax.Array, position: jax.Array, **flat: jax.Array) -> dict[str, jax.Array]:
        # Signatures take arrays by name, no nested ones.
        pairs = tuple(
            attention.KeyValue(flat[f"key_{block}"], flat[f"value_{block}"])
            for block in range(config.decoder_blocks)
        )
        logits, cache = call("decode_step", ids, position, pairs)
        return {"logits": logits, **cached(cache)}

    side, number = config.image_side, np.float32
    pixels = {"pixels": ((1, side, side, 3), number)}
    lines = {"lines": ((1, config.line_height, config.line_width), number)}
    prefix = ((1, config.prefix_length, config.width), number)
    # The cache keeps one size from the first step on: files have no shapes that grow.
    rows = config.prefix_length + config.max_text
    room = ((1, config.kv_heads, rows, config.head_dim), number)
    cache = {f"{n}_{b}": room for b in range(config.decoder_blocks) for n in ("key", "value")}
    one = ((1,), np.int32)
    found = {
        "encode_image": Signature(lambda pixels: {"prefix": call("encode_image", pixels)}, pixels),
        "embed_image": Signature(lambda pixels: {"embedding": call("embed_image", pixels)}, pixels),
        "read_lines": Signature(lambda lines: {"logits": call("read_lines", lines)}, lines),
        "decode_step": Signature(decode_step, {"ids": one, "position": one, **cache}),
    }
    for length in lengths(config):
        ids = ((1, length), np.int32)
        found[f"embed_text_{length}"] = Signature(
            lambda ids: {"embedding": call("embed_text", ids)}, {"ids": ids}
        )
        found[f"prefill_{length}"] = Signature(prefill, {"prefix": prefix, "ids": ids})
    return found
