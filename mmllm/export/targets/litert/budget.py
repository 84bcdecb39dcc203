"""Where the bytes of a LiteRT file are: weights by tensor class and type, scales, the graph."""

from typing import Any

import numpy as np

from mmllm.bundle import legacy
from mmllm.bundle.sizes import CLASSES
from mmllm.export.targets.litert import flatbuffer

MAX_BYTES = 35_000_000
"""Bytes that one file may have."""

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "DEQUANTIZE")
PURPOSES = {
    ("FULLY_CONNECTED", 1): "biases",
    ("ADD", 1): "biases",
    ("ADD", 4): "positions and masks",
    ("MUL", 3): "norms",
    ("MUL", 4): "rotary positions",
}
"""What an unnamed float32 constant is, by the operation that reads it and its number of axes."""
SHAPES = "shapes and places"


def of_file(file: bytes) -> dict[str, Any]:
    """Every byte of a file by what it is for.

    Returns:
      "bytes", the whole; "limit", MAX_BYTES; "rows" of {"part", "type", "weights", "bytes"},
      largest first, which add up to the whole; the row "graph" is all but constants and scales.

    Raises:
      ValueError: the file is larger than MAX_BYTES.
    """
    if len(file) > MAX_BYTES:
        raise ValueError(
            f"the LiteRT file must have at most {MAX_BYTES:,} bytes, got {len(file):,}"
        )
    model = flatbuffer.read(file)
    totals: dict[tuple[str, str], list[int]] = {}
    seen: set[int] = set()
    scales: dict[bytes, int] = {}
    zeros: dict[int, int] = {}

    def count(part: str, kind: str, numbers: int, size: int) -> None:
        total = totals.setdefault((part, kind), [0, 0])
        total[0] += numbers
        total[1] += size

    for reading in flatbuffer.readings(model):
        tensor = reading.tensor
        data = model.buffers[tensor.buffer].data
        # Signatures share constants: a buffer counts once, for the first that reads it.
        if tensor.buffer in seen or data is None or not len(data):
            continue
        seen.add(tensor.buffer)
        kind = flatbuffer.type_name(tensor)
        count(_part(reading, kind), kind, int(np.prod(tensor.shape)), len(data))
        if tensor.quantization is not None and tensor.quantization.scale is not None:
            # `flatbuffer.write` stores equal scales once, and one zero point vector a length.
            scale = np.asarray(tensor.quantization.scale, np.float32)
            scales[scale.tobytes()] = len(scale)
            zeros[len(scale)] = 8 * len(scale)
    count("scales", "FLOAT32", sum(scales.values()), 4 * sum(scales.values()))
    count("zero points", "INT64", sum(zeros.values()) // 8, sum(zeros.values()))
    # Whatever has not been counted: operations, shapes, names, alignment.
    count("graph", "-", 0, len(file) - sum(size for _, size in totals.values()))
    rows = [
        {"part": part, "type": kind, "weights": numbers, "bytes": size}
        for (part, kind), (numbers, size) in totals.items()
    ]
    return {
        "bytes": len(file),
        "limit": MAX_BYTES,
        "rows": sorted(rows, key=lambda row: -row["bytes"]),
    }


def _part(reading: flatbuffer.Reading, kind: str) -> str:
    """What a constant is for: its tensor class where it has a name, its purpose otherwise."""
    # Only packed weights have names in the file; those of older files are of schema 2.
    named = CLASSES.get(legacy.path((reading.tensor.name or b"").decode()).split("/")[0])
    if named:
        return named
    if reading.kind in CONVOLUTIONS:
        return "pretrained backbone"
    if kind.startswith("INT"):
        return SHAPES
    return PURPOSES.get((reading.kind, len(reading.tensor.shape)), "other numbers")
