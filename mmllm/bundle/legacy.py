"""What older bundles call things: schema 2 had a "stem" where the model now has a backbone.

Files stay as they were written, and so do their hashes and fingerprints; names are translated as
they are read.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

FIELDS = {"stem": "backbone", "tap": "level"}
"""Fields of a model's config, by their name in schema 2."""

PARTS = {"stem": "backbone", "stem_affine": "feature_affine"}
"""First names of parameters, by their name in schema 2."""

LAST = {"largest": "amax"}
"""Last names of parameters, by their name in schema 2."""

ACTIVATIONS, FLOAT_BLOCKS = "activations", "float_blocks"
"""Fields of a model's config that said how inputs are rounded, which `quantized` says now."""


def config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a stored model config under the names of today."""
    removed = (ACTIVATIONS, FLOAT_BLOCKS)
    return {FIELDS.get(key, key): value for key, value in values.items() if key not in removed}


def path(name: str) -> str:
    """A parameter's path under the names of today; a path of today stays as it is."""
    # Only the first name: "stem/stem", the first convolution, is called stem to this day.
    first, *others = name.split("/")
    names = [PARTS.get(first, first), *others]
    return "/".join([*names[:-1], LAST.get(names[-1], names[-1])])


def has_inputs(values: Mapping[str, Any]) -> bool:
    """Whether a stored model config says how inputs are rounded, and not each quantized weight."""
    return ACTIVATIONS in values


def inputs(values: Mapping[str, Any], weights: Iterable[str]) -> dict[str, str]:
    """How each layer rounds its inputs by a config of schema 2; nothing by one of today.

    There one field held for the whole model, but for the backbone: its first blocks stayed float,
    and its other blocks were rounded per token even where the rest was per tensor.

    Args:
      values: the stored model config.
      weights: paths of the model's matrices, under the names of today.
    """
    rounding = values.get(ACTIVATIONS, "float")
    if rounding == "float":
        return {}
    found = {}
    for weight in weights:
        block = re.match(r"backbone/block_(\d+)/", weight)
        if block is None:
            found[weight] = rounding
        elif int(block[1]) >= values[FLOAT_BLOCKS]:
            found[weight] = "int8"
    return found
