"""Captions through a file and through JAX: the share that is the same token for token."""

from typing import Any

import numpy as np
from jaxtyping import Int

from mmllm.parity.samples import Samples, moved
from mmllm.runtime import decode
from mmllm.runtime.engines.base import MAX_ROWS
from mmllm.runtime.model import CAPTION_TOKENS, MobileMultiModalLLM

SAME_PREFIX, SAME_PICTURES, ITSELF = "same image tokens", "same pictures", "JAX against itself"


def same_tokens(
    lite: MobileMultiModalLLM, ours: MobileMultiModalLLM, samples: Samples
) -> dict[str, float]:
    """Share of greedy captions that are the same token for token, over pictures and prompts.

    Returns:
      "same image tokens": both decode from JAX's image tokens; "same pictures": each encodes the
      pictures itself; and what JAX gives against itself from image tokens, and pictures, that are
      changed by one part in two million.
    """
    how = {"end": ours.tokenizer.eos_id, "banned": ours.banned, "limit": CAPTION_TOKENS}

    def answers(engine: Any, prefix: np.ndarray, ids: Int[np.ndarray, "p"]) -> list[list[int]]:
        found: list[list[int]] = []
        for start in range(0, len(prefix), MAX_ROWS):
            part = prefix[start : start + MAX_ROWS]
            padded = decode.Prompts(
                np.repeat(ids[None], len(part), axis=0),
                np.full(len(part), np.count_nonzero(ids), np.int32),
            )
            found += [answer.ids for answer in decode.greedy(engine, part, padded, **how)]
        return found

    prefix = ours.engine.encode_image(samples.pixels)
    own_moved = ours.engine.encode_image(moved(samples.pixels))
    # From JAX's tokens it is the decoder that is compared, from pictures the whole model.
    runs = {
        SAME_PREFIX: (lite.engine, prefix),
        f"{SAME_PREFIX}, {ITSELF}": (ours.engine, moved(prefix)),
        SAME_PICTURES: (lite.engine, lite.engine.encode_image(samples.pixels)),
        f"{SAME_PICTURES}, {ITSELF}": (ours.engine, own_moved),
    }
    same: dict[str, list[bool]] = {name: [] for name in runs}
    for ids in samples.prompts:
        target = answers(ours.engine, prefix, ids)
        for name, (engine, start) in runs.items():
            prediction = answers(engine, start, ids)
            same[name] += [a == b for a, b in zip(prediction, target, strict=True)]
    return {name: float(np.mean(each)) for name, each in same.items()}
