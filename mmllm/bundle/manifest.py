"""What a bundle's manifest.json must hold, so that whatever reads it may rely on it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mmllm

SCHEMA_VERSION = 3
READABLE = (2, 3)
"""Versions that `mmllm.bundle.legacy` translates, and the newest, which is written."""

REQUIRED = {
    "name": str,
    "config": dict,
    "config_sha256": str,
    "charset": str,
    "languages": list,
    "files": dict,
    "bytes": dict,
    "parameters": int,
    "tensor_classes": dict,
    "quantized": dict,
}
OPTIONAL = {
    "created_by": str,
    "scores": dict,
    "data": list,
    "pretrained": list,
    "provenance": dict,
}
JSON_NAMES = {str: "a string", dict: "an object", list: "a list", int: "a whole number"}


def check(path: Path, manifest: Any) -> None:
    """Checks a manifest's version and the types of its fields; not what they say of the files.

    Args:
      path: where it was read from, for messages.
      manifest: the parsed JSON.

    Raises:
      ValueError: no object, an unsupported schema version, or a field missing or of another type.
    """
    if not isinstance(manifest, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(manifest).__name__}")
    # Before the fields: another version may have others, and should be told as such.
    version = manifest.get("schema_version")
    if version not in READABLE:
        raise ValueError(
            f"{path} has schema_version {version!r}; mmllm {mmllm.__version__} reads "
            f"{' and '.join(map(str, READABLE))}: get a bundle and a package of the same generation"
        )
    if missing := [field for field in REQUIRED if field not in manifest]:
        raise ValueError(f"{path} is damaged: it lacks {', '.join(missing)}")
    for field, kind in {**REQUIRED, **OPTIONAL}.items():
        # Not isinstance: to Python, true is a whole number.
        if field in manifest and type(manifest[field]) is not kind:
            raise ValueError(f"{path} is damaged: {field} must be {JSON_NAMES[kind]}")
    for field, value, rule in (
        ("languages", manifest["languages"], "name at least one language, as strings"),
        ("files", manifest["files"].values(), "give each file's sha256, a string"),
        ("bytes", manifest["bytes"].values(), "give each file's size, a whole number"),
        ("tensor_classes", manifest["tensor_classes"].values(), "hold parameters, bytes and bits"),
        ("data", manifest.get("data", ()), "hold objects with a name"),
        ("pretrained", manifest.get("pretrained", ()), "hold objects with a name"),
    ):
        if not ITEMS[field](value):
            raise ValueError(f"{path} is damaged: {field} must {rule}")


def _all(values: Iterable[Any], *kinds: type) -> bool:
    return all(type(value) in kinds for value in values)


def _are_sizes(rows: Iterable[Any]) -> bool:
    return all(
        isinstance(row, dict)
        and _all((row.get("parameters"), row.get("bytes")), int)
        # A fraction, as a rule: scales count among a weight's bits.
        and _all((row.get("bits"),), int, float)
        for row in rows
    )


def _are_sources(rows: Iterable[Any]) -> bool:
    texts = ("version", "sha256", "hash")
    return all(
        isinstance(row, dict) and _all((row.get("name"), *(row.get(k, "") for k in texts)), str)
        for row in rows
    )


ITEMS = {
    "languages": lambda values: bool(values) and _all(values, str),
    "files": lambda values: _all(values, str),
    "bytes": lambda values: _all(values, int),
    "tensor_classes": _are_sizes,
    "data": _are_sources,
    "pretrained": _are_sources,
}
"""Whether what a field holds is of the right types."""
