"""Built corpora -> random access to their examples: what training and evaluation read.

Reading needs neither TensorFlow nor the packages that a corpus was built from.
"""

import io
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmllm.common import paths

DATA_HASH_FILE = "data_hash.json"
ATTRIBUTION_FILE = "attribution.jsonl"


class Corpus:
    """Random access to one split of a corpus; picklable, so grain's workers can hold it.

    Each example is a dict: pictures as UInt8[y x c] arrays, text as str, sequences of text as
    list[str].
    """

    def __init__(self, name: str, split: str, images: bool = True):
        self.name = name
        self.split = split
        self._images = images
        self._rows, self._features = _open(str(folder_of(name)), split)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._decoded(self._rows[int(index)])

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Reads several examples in one go; faster than one by one."""
        return [self._decoded(row) for row in self._rows.__getitems__([int(i) for i in indices])]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # In chunks, as one read of many is faster; not whole, as pictures would fill the memory.
        for start in range(0, len(self), 256):
            yield from self.__getitems__(list(range(start, min(start + 256, len(self)))))

    def __repr__(self) -> str:
        return f"Corpus({self.name!r}, {self.split!r}, {len(self)} examples)"

    def _decoded(self, row: Mapping[str, Any]) -> dict[str, Any]:
        example: dict[str, Any] = {}
        for name, value in row.items():
            if name in self._features:
                if self._images:
                    example[name] = decode_image(value, self._features[name])
            else:
                example[name] = _plain(value)
        return example


def load(name: str, split: str, images: bool = True) -> Corpus:
    """Opens one split of a built corpus.

    Args:
      name: of a corpus, a key of `registry.CORPORA`.
      split: one of its splits, e.g. "style_out".
      images: False leaves the pictures out, which reads texts many times faster.

    Raises:
      FileNotFoundError: the corpus is not built.
      ValueError: it has no such split.
    """
    return Corpus(name, split, images)


def is_built(name: str) -> bool:
    """Whether a corpus is built completely."""
    try:
        folder_of(name)
    except FileNotFoundError:
        return False
    return True


def folder_of(name: str) -> Path:
    """Returns the folder of the newest complete build of a corpus.

    Raises:
      FileNotFoundError: there is none.
    """
    versions = (paths.data_dir() / "tfds" / name).glob(f"*/{DATA_HASH_FILE}")
    newest = max(versions, key=lambda file: _numbers(file.parent.name), default=None)
    if newest is None:
        raise FileNotFoundError(f"corpus {name!r} is not built; run `mmllm data build {name}`")
    return newest.parent


def describe(name: str) -> dict[str, Any]:
    """Returns what the build wrote down: "hash", "splits" (name -> examples), "licences"."""
    return json.loads((folder_of(name) / DATA_HASH_FILE).read_text("utf-8"))


def data_hash(name: str) -> str:
    """Returns the sha256 over all examples of a built corpus, in hex."""
    return describe(name)["hash"]


def decode_image(data: bytes, channels: int | None) -> np.ndarray:
    """Returns the pixels of an encoded picture, UInt8[y x c]."""
    with Image.open(io.BytesIO(data)) as picture:
        mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels or 0, picture.mode)
        pixels = np.array(picture if picture.mode == mode else picture.convert(mode))
    return pixels[..., None] if pixels.ndim == 2 else pixels


@cache
def _open(folder: str, split: str) -> tuple[Any, dict[str, int | None]]:
    """Opens the ArrayRecord files; returns (rows, channels by image feature)."""
    # Here, so that whoever reads no corpus needs no tfds.
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(folder)
    if split not in builder.info.splits:
        known = ", ".join(builder.info.splits)
        raise ValueError(f"corpus {builder.name!r} has no split {split!r}; it has: {known}")
    pictures = {
        name: feature.shape[-1]
        for name, feature in builder.info.features.items()
        if isinstance(feature, tfds.features.Image)
    }
    # Pictures stay encoded: `decode_image` opens them, and only where they are looked at.
    skip = {name: tfds.decode.SkipDecoding() for name in pictures}
    return builder.as_data_source(split, decoders=skip), pictures


def _plain(value: Any) -> Any:
    """Bytes -> str, arrays of bytes -> list of str; numbers and arrays stay."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, (list, np.ndarray)) and len(value) and isinstance(value[0], bytes):
        return [item.decode("utf-8") for item in value]
    if isinstance(value, np.ndarray) and value.dtype == object:
        return list(value)
    return value


def _numbers(version: str) -> tuple[int, ...]:
    # As numbers, so that 1.10.0 is newer than 1.9.0.
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))
