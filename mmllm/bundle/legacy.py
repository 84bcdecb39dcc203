"""What older bundles call things: schema 2 had a "stem" where the model now has a backbone.

Files stay as they were written, and so do their hashes and fingerprints; names are translated as
they are read.
"""

from collections.abc import Mapping
from typing import Any

FIELDS = {"stem": "backbone", "tap": "level"}
"""Fields of a model's config, by their name in schema 2."""

PARTS = {"stem": "backbone", "stem_affine": "feature_affine"}
"""First names of parameters, by their name in schema 2."""

LAST = {"largest": "amax"}
"""Last names of parameters, by their name in schema 2."""


def config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a stored model config under the names of today."""
    return {FIELDS.get(name, name): value for name, value in values.items()}


def path(name: str) -> str:
    """A parameter's path under the names of today; a path of today stays as it is."""
    first, *others = name.split("/")
    names = [PARTS.get(first, first), *others]
    return "/".join([*names[:-1], LAST.get(names[-1], names[-1])])
