"""Counts parameters and bytes by tensor class: what `mmllm info` and the size budget print."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmllm.common import tensors

CLASSES = {
    "backbone": "pretrained backbone",
    "feature_affine": "image tokens",
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


def parameters_by_class(params: Mapping[str, Any]) -> dict[str, int]:
    """Parameters of each tensor class of `CLASSES`.

    Raises:
      ValueError: a top-level name without a class.
    """
    totals: dict[str, int] = {}
    for path, value in tensors.flatten(params):
        top = path.split("/")[0]
        if top not in CLASSES:
            raise ValueError(f"parameter {path} has no tensor class; known: {', '.join(CLASSES)}")
        label = CLASSES[top]
        totals[label] = totals.get(label, 0) + int(np.prod(value.shape))
    return totals


def by_class(
    params: Mapping[str, Any], stored: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Parameters, bytes and bits of each tensor class, as stored.

    Args:
      params: the model.
      stored: arrays as a file holds them; "NAME:scale" belongs to NAME.

    Returns:
      By class: "parameters", "bytes", and "bits", those of a parameter, scales included.
    """
    rows = {
        label: {"parameters": count, "bytes": 0}
        for label, count in parameters_by_class(params).items()
    }
    for path, value in stored.items():
        rows[CLASSES[path.split("/")[0]]]["bytes"] += value.nbytes
    return {
        label: row | {"bits": round(8 * row["bytes"] / row["parameters"], 2)}
        for label, row in rows.items()
    }
