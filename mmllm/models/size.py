"""Counts parameters and bytes by tensor class: what `mmllm info` and the size budget print."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mmllm.common.types import Params

CLASSES = {
    "stem": "pretrained stem",
    "stem_affine": "image tokens",
    "picture_tokens": "image tokens",
    "line_tokens": "line tokens",
    "encoder": "encoder",
    "image_embedding": "retrieval heads",
    "embedding_token": "retrieval heads",
    "embed": "token embedding",
    "decoder": "decoder",
    "text_tower": "text tower",
    "line_reader": "line reader",
}


def flatten(params: Params, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields ("encoder/block_0/attention/query/kernel", array), sorted by name."""
    for name in sorted(params):
        value = params[name]
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def parameters_by_class(params: Params) -> dict[str, int]:
    """Parameters of each tensor class of `CLASSES`.

    Raises:
      ValueError: a top-level name without a class.
    """
    totals: dict[str, int] = {}
    for path, value in flatten(params):
        top = path.split("/")[0]
        if top not in CLASSES:
            raise ValueError(f"parameter {path} has no tensor class; known: {', '.join(CLASSES)}")
        label = CLASSES[top]
        totals[label] = totals.get(label, 0) + int(np.prod(value.shape))
    return totals
