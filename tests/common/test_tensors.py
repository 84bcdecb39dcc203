"""Trees of arrays come back from a file as they were, and damage is named."""

import jax
import numpy as np
import pytest

from mmllm.common import tensors

TREE = {"a": {"b": np.ones(2, np.float16), "c": {"d": np.zeros((3, 1))}}, "e": np.float32(3.0)}


def test_flatten_and_unflatten_are_inverse():
    flat = dict(tensors.flatten(TREE))
    assert list(flat) == ["a/b", "a/c/d", "e"]
    assert jax.tree.structure(tensors.unflatten(flat)) == jax.tree.structure(TREE)
    assert dict(tensors.flatten(tensors.unflatten(flat))) == flat


def test_a_name_with_a_slash_is_refused():
    with pytest.raises(ValueError, match="'b/c' must not contain '/'"):
        dict(tensors.flatten({"a": {"b/c": np.ones(1)}}))


def test_a_tree_comes_back_as_float32_and_readable_by_all(tmp_path):
    path = tmp_path / "folder" / "tree.safetensors"
    tensors.write(path, TREE)
    again = dict(tensors.flatten(tensors.read(path)))
    assert {value.dtype for value in again.values()} == {np.dtype(np.float32)}
    assert {name: value.tolist() for name, value in again.items()} == {
        name: value.tolist() for name, value in tensors.flatten(TREE)
    }
    assert path.stat().st_mode & 0o044 == 0o044
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_damage_is_named(tmp_path):
    path = tmp_path / "tree.safetensors"
    tensors.write(path, TREE)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"tree\.safetensors is damaged"):
        tensors.read(path)
    with pytest.raises(FileNotFoundError):
        tensors.read(tmp_path / "missing")
