"""Finds pictures in a folder by words: an index of embeddings, kept between calls, and a ranking.

The index of a folder lies in the user's cache; a picture is embedded again only when its size or
time changes, and all are when the model does.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float32

from mmllm.common import paths
from mmllm.data import images as images_lib
from mmllm.runtime.engines.base import MAX_ROWS
from mmllm.runtime.model import MobileMultiModalLLM

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")

Stamp = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds; both unchanged: the same file."""


class Hit(NamedTuple):
    """A picture and the cosine of its embedding with the query's, -1..1."""

    path: Path
    score: float


class Index(NamedTuple):
    """Pictures of a folder and their unit embeddings, row by row."""

    paths: list[Path]
    embeddings: Float32[np.ndarray, "b e"]


def pictures_in(folder: Path) -> Iterator[Path]:
    """Yields the picture files below a folder, sorted; hidden files and folders are left out."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(parent, name)


def index_folder(
    model: MobileMultiModalLLM,
    folder: Path | str,
    *,
    cache: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = lambda message: None,
) -> Index:
    """Embeds the pictures of a folder, those already known taken from the cache.

    Args:
      model: makes the embeddings.
      folder: searched with its subfolders.
      cache: folder of index files; `data_dir()/search` by default.
      progress: called with the number of new pictures done, and of all new ones.
      warn: told of files that are left out and of an index that could not be read or kept.

    Returns:
      The readable pictures.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: not a folder, or one without a readable picture.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"folder {str(folder)!r} does not exist")
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is not a folder; give the folder to search in")
    root = folder.resolve()
    # By folder and model: embeddings of two models cannot be compared.
    key = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    file = (cache or paths.data_dir() / "search") / f"{key}-{model.fingerprint[:16]}.npz"
    known = _load(file, model, warn)
    stamps = {path: _stamp(path) for path in pictures_in(root)}
    embedded = {
        path: known[path][1] for path in stamps if path in known and known[path][0] == stamps[path]
    }
    fresh = [path for path in stamps if path not in embedded]
    try:
        for start in range(0, len(fresh), MAX_ROWS):
            progress(start, len(fresh))
            embedded.update(_embed(model, fresh[start : start + MAX_ROWS], warn))
    finally:
        # Whatever interrupts it: the next call goes on with what was embedded.
        if fresh or embedded.keys() != known.keys():
            _save(
                file,
                {path: (stamps[path], embedded[path]) for path in stamps if path in embedded},
                warn,
            )
    progress(len(fresh), len(fresh))
    found = [path for path in stamps if path in embedded]
    if not found:
        raise ValueError(
            f"folder {str(folder)!r} holds no readable picture ({', '.join(SUFFIXES)})"
        )
    # As the caller wrote the folder, so that what is printed can be pasted.
    return Index(
        [folder / path.relative_to(root) for path in found], np.stack([embedded[p] for p in found])
    )


def rank(index: Index, query: Float32[np.ndarray, "e"], top: int) -> list[Hit]:
    """The `top` pictures closest to a query's embedding, best first.

    Raises:
      ValueError: `top` below 1.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    scores = index.embeddings @ query
    # Stable: pictures with equal scores come in the same order in every call.
    order = np.argsort(-scores, kind="stable")[:top]
    return [Hit(index.paths[i], float(scores[i])) for i in order]


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _embed(
    model: MobileMultiModalLLM, batch: list[Path], warn: Callable[[str], None]
) -> dict[Path, np.ndarray]:
    opened = {}
    for path in batch:
        try:
            # Small at once: 64 photographs as they are would fill the memory.
            opened[path] = images_lib.to_square(
                images_lib.open_image(path), model.config.image_side
            )
        except (OSError, ValueError) as error:
            warn(f"left out: {error}")
    if not opened:
        return {}
    return dict(zip(opened, model.embed_images(list(opened.values())), strict=True))


def _load(
    file: Path, model: MobileMultiModalLLM, warn: Callable[[str], None]
) -> dict[Path, tuple[Stamp, np.ndarray]]:
    if not file.is_file():
        return {}
    try:
        # No pickles: whoever can write the cache could run code with them.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            names = json.loads(stored["names"].tobytes())
            stamps, embeddings = stored["stamps"], stored["embeddings"]
        if stamps.shape != (len(names), 2) or embeddings.shape != (
            len(names),
            model.config.embed_dim,
        ):
            raise ValueError("its parts do not fit together")
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        warn(f"index {file} is damaged and made anew: {error}")
        return {}
    return {
        Path(name): ((int(stamp[0]), int(stamp[1])), row)
        for name, stamp, row in zip(names, stamps, embeddings, strict=True)
    }


def _save(
    file: Path, entries: dict[Path, tuple[Stamp, np.ndarray]], warn: Callable[[str], None]
) -> None:
    if not entries:
        return
    # JSON escapes file names that are no UTF-8.
    names = json.dumps([str(path) for path in entries]).encode()
    try:
        with paths.written_whole(file) as temporary:
            np.savez(
                temporary,
                names=np.frombuffer(names, np.uint8),
                stamps=np.array([stamp for stamp, _ in entries.values()], np.int64),
                embeddings=np.stack([row for _, row in entries.values()]),
            )
    except OSError as error:
        warn(f"the index could not be kept in {file}: {error}")
