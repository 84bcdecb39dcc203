"""Parameter trees as safetensors files: flat names such as "encoder/block_0/mlp/up/kernel"."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmllm.common import paths


def flatten(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yields ("encoder/block_0/attention/query/kernel", array), sorted by name."""
    for key in sorted(params):
        value = params[key]
        if "/" in key:
            raise ValueError(f"parameter name {prefix}{key!r} must not contain '/'")
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", np.asarray(value)


def unflatten(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Turns flat names back into nested dicts: the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, value in tensors.items():
        *parents, leaf = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def sha256(params: Mapping[str, Any]) -> str:
    """Hex digest of a tree's names and of its values in float16, the precision that ships."""
    digest = hashlib.sha256()
    for name, value in flatten(params):
        digest.update(name.encode() + np.asarray(value, np.float16).tobytes())
    return digest.hexdigest()


def write(path: Path, params: Mapping[str, Any]) -> None:
    """Writes a tree of arrays, whole or not at all."""
    from safetensors.numpy import save_file

    # safetensors writes the buffer as it lies, whatever the strides say.
    tensors = {name: np.asarray(value, order="C") for name, value in flatten(params)}
    with paths.written_whole(path) as partial:
        save_file(tensors, str(partial))
        partial.chmod(0o644)  # safetensors leaves it readable by its owner alone


def read(path: Path, *, floats: bool = True) -> dict[str, Any]:
    """Reads a tree; everything comes as float32, unless `floats` is false.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a damaged file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(str(path))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if floats:
        tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
    return unflatten(tensors)
