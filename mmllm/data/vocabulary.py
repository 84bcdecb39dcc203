"""The vocabulary of a run: a named artifact beside the corpora, so that runs share it.

It is trained on the texts of the mixture where it is missing, and opened as it is where it is
there. So a corpus that is added later changes no token id, and a run can go on with new data; a
text it brings is then spelled with the pieces there are, or in bytes. Another vocabulary is another
name.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mmllm.common import paths
from mmllm.data import tokenizer as tokenizer_lib
from mmllm.data.tokenizer import Tokenizer

FOLDER = "vocabularies"
MODEL = "tokenizer.model"
RECORD = "vocabulary.json"
VERSION = 1  # of the record's fields


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A vocabulary on disk.

    Attributes:
      path: its SentencePiece file.
      sha256: of that file.
      size: pieces, tasks and places among them.
      trained_on: hashes of the corpora, lines and dictionary words; empty where that is not known.
    """

    path: Path
    sha256: str
    size: int
    trained_on: Mapping[str, Any]

    @property
    def tokenizer(self) -> Tokenizer:
        """Opens it."""
        return Tokenizer(self.path)


def folder(name: str) -> Path:
    """Where a vocabulary lies."""
    return paths.data_dir() / FOLDER / name


def exists(name: str) -> bool:
    """Whether it has been made: its record is written last."""
    return (folder(name) / RECORD).is_file()


def load(name: str, size: int) -> Vocabulary:
    """Opens a vocabulary.

    Args:
      name: as in `cfg.data.vocabulary`.
      size: pieces that the model has room for, `cfg.model.vocab_size`.

    Raises:
      FileNotFoundError: none of that name.
      ValueError: another size, or a file that is not the one recorded.
    """
    path, record = folder(name) / MODEL, folder(name) / RECORD
    if not exists(name) or not path.is_file():
        raise FileNotFoundError(
            f"no vocabulary at {folder(name)}; prepare a run: "
            "python -m mmllm.train --prepare_only --config=..."
        )
    known = json.loads(record.read_text("utf-8"))
    # Another file of the same size would turn every cached id into another piece.
    found = _sha256(path)
    if found != known["sha256"]:
        raise ValueError(
            f"{path} is not the vocabulary that {RECORD} describes (sha256 {found[:12]}, recorded "
            f"{known['sha256'][:12]}); remove {path.parent} to train it anew"
        )
    if known["size"] != size:
        raise ValueError(
            f"the vocabulary {name!r} has {known['size']} pieces, model.vocab_size is {size}: "
            "set it to that, or data.vocabulary to another name"
        )
    return Vocabulary(path, found, known["size"], known.get("trained_on") or {})


def load_or_train(
    name: str,
    size: int,
    texts: Callable[[], Iterable[str]],
    trained_on: Mapping[str, Any],
) -> Vocabulary:
    """Opens a vocabulary, or trains it on unique texts and records what it was trained on.

    Args:
      name: as in `cfg.data.vocabulary`.
      size: pieces.
      texts: gives the training texts; called only where the vocabulary is missing.
      trained_on: for the record: hashes of the corpora, lines and dictionary words.

    Raises:
      ValueError: see `load`, and `tokenizer.train`.
    """
    if not exists(name):
        path = folder(name) / MODEL
        path.parent.mkdir(parents=True, exist_ok=True)
        # Sorted, so that the order of corpora and examples changes no piece.
        tokenizer_lib.train(sorted({text for text in texts() if text}), path, size)
        _record(name, {"size": size, "trained_on": dict(trained_on)})
    return load(name, size)


def install(name: str, file: Path) -> Vocabulary:
    """Puts a bundle's tokenizer under a name, so that a run regained from it keeps its ids.

    Raises:
      ValueError: another vocabulary of that name is there, or a damaged file.
    """
    tokenizer = Tokenizer(file)
    path = folder(name) / MODEL
    if exists(name):
        if _sha256(path) != _sha256(file):
            raise ValueError(
                f"{path.parent} holds another vocabulary than {file}; give the run's config "
                "another name in data.vocabulary"
            )
        return load(name, tokenizer.vocab_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The record comes after it: `exists` looks for that alone.
    with paths.written_whole(path) as partial:
        shutil.copyfile(file, partial)
    # What it was trained on stands in the record of the machine that trained it.
    _record(name, {"size": tokenizer.vocab_size, "trained_on": None})
    return load(name, tokenizer.vocab_size)


def _record(name: str, fields: Mapping[str, Any]) -> None:
    """Writes the record, which says that the vocabulary is complete."""
    known = {"version": VERSION, "sha256": _sha256(folder(name) / MODEL), **fields}
    with paths.written_whole(folder(name) / RECORD) as partial:
        partial.write_text(json.dumps(known, indent=2) + "\n", "utf-8")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
