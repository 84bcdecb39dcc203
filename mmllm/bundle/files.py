"""The bundle: a folder with everything a runtime needs, checked byte for byte when it is loaded.

    manifest.json        config, sizes, scores, provenance and licences, sha256 of each file
    tokenizer.model      SentencePiece
    weights.safetensors  the master: float16, flat names such as "encoder/norm/scale"; quantized
                         weights as packed codes, and their scales (float32) under NAME:scale
    model.cpu.tflite     the same for LiteRT, where it was exported

Training writes it with `save`, an exporter adds its file with `add`, runtimes read it with `load`.
"""

import contextlib
import dataclasses
import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mmllm
from mmllm.bundle import legacy, quantized, sizes
from mmllm.bundle import manifest as manifest_lib
from mmllm.common import config as config_lib
from mmllm.common import paths
from mmllm.common import tensors as tensors_lib
from mmllm.quant.coded import Coded
from mmllm.quant.rules import Rule

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.model"
WEIGHTS = "weights.safetensors"
LITERT = "model.cpu.tflite"
ASIDE = ".old"


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A loaded bundle.

    Attributes:
      folder: where it was read from.
      manifest: the whole manifest.json.
      config: sizes of the model.
      params: nested mapping of float32 arrays, quantized weights as what their codes stand for.
      coded: the quantized weights themselves, by path.
      rules: one for each layer that rounds weights or inputs: what the model is built with.
      tokenizer_path: the verified SentencePiece file.
    """

    folder: Path
    manifest: Mapping[str, Any]
    config: config_lib.ModelConfig
    params: Mapping[str, Any]
    coded: Mapping[str, Coded]
    rules: tuple[Rule, ...]
    tokenizer_path: Path

    @property
    def fingerprint(self) -> str:
        """Changes with weights, tokenizer and sizes: the key of anything computed with them."""
        return fingerprint(self.manifest)


def fingerprint(manifest: Mapping[str, Any]) -> str:
    """Hex sha256 over the hashes of a manifest's files and of its config."""
    # Not scores or provenance: a bundle that is measured later keeps its stored embeddings valid.
    parts = [f"{name}:{digest}" for name, digest in sorted(manifest["files"].items())]
    parts.append(json.dumps(manifest["quantized"], sort_keys=True))  # what the codes stand for
    return hashlib.sha256("\n".join([*parts, manifest["config_sha256"]]).encode()).hexdigest()


def save(
    folder: Path | str,
    *,
    params: Mapping[str, Any],
    config: config_lib.ModelConfig,
    tokenizer_path: Path | str,
    charset: str,
    languages: Sequence[str],
    scores: Mapping[str, Any],
    data: Sequence[Mapping[str, Any]],
    pretrained: Sequence[Mapping[str, Any]],
    coded: Mapping[str, Coded] | None = None,
    rules: Sequence[Rule] = (),
    name: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a bundle, all of it or nothing; an older one stands until the new one is whole.

    Args:
      folder: where it will stand; an older bundle there is replaced, anything else is refused.
      params: nested mapping of arrays; floats are stored as float16.
      config: sizes of the model.
      tokenizer_path: SentencePiece file to copy in.
      charset: characters of the line reader; class i is charset[i - 1].
      languages: caption languages, e.g. ["en", "de"].
      scores: metric name -> value, for `mmllm info`.
      data: one {"name", "hash", "licence"} a corpus.
      pretrained: one {"name", "version", "sha256", "licence"} a pretrained part.
      coded: weights that are stored as codes, by path; their floats in `params` are not read.
      rules: of the model; say how the layers round their inputs.
      name: the bundle's name; the folder's own by default.
      provenance: what made the parameters: {"commit", "dirty", "step", "seed", "training",
        "training_sha256", "parent"}, see `export.from_run`.

    Returns:
      The folder.

    Raises:
      ValueError: a tensor that float16 cannot hold, a charset that does not fit the config, or a
        folder that holds something else.
      FileNotFoundError: no tokenizer file.
    """
    # Resolved: the bundle behind a link is replaced, not the link.
    folder, tokenizer_path = Path(folder).resolve(), Path(tokenizer_path)
    _check_new(folder, config, tokenizer_path, charset)
    coded = coded or {}
    shapes = {path: np.shape(value) for path, value in tensors_lib.flatten(params)}
    entries = quantized.entries(shapes, coded, rules)
    tensors = _stored(params, coded)
    about: dict[str, Any] = {
        "schema_version": manifest_lib.SCHEMA_VERSION,
        "name": name or folder.name,
        "created_by": f"mmllm {mmllm.__version__}",
        "config": config_lib.to_dict(config),
        "config_sha256": config_lib.stored_sha256(config_lib.to_dict(config)),
        "charset": charset,
        "languages": list(languages),
        "files": {},
        "bytes": {},
        "parameters": sum(value.size for _, value in tensors_lib.flatten(params)),
        "tensor_classes": sizes.by_class(params, tensors),
        "quantized": entries,
        "scores": dict(scores),
        "data": [dict(row) for row in data],
        "pretrained": [dict(row) for row in pretrained],
    }
    if provenance is not None:
        about["provenance"] = dict(provenance)
    # Beside it: a rename that crosses disks would be a copy, which can stop halfway.
    temporary = paths.temporary_beside(folder)
    try:
        temporary.mkdir()
        tensors_lib.write(temporary / WEIGHTS, tensors_lib.unflatten(tensors))
        shutil.copyfile(tokenizer_path, temporary / TOKENIZER)
        for file in (TOKENIZER, WEIGHTS):
            about["files"][file] = sha256_file(temporary / file)
            about["bytes"][file] = (temporary / file).stat().st_size
        (temporary / MANIFEST).write_text(_json(about), encoding="utf-8")
        _swap(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _check_new(
    folder: Path, config: config_lib.ModelConfig, tokenizer_path: Path, charset: str
) -> None:
    """Raises what `save` does before it writes anything."""
    if len(charset) != config.charset_size or len(set(charset)) != len(charset):
        raise ValueError(
            f"charset must hold {config.charset_size} different characters (model.charset_size), "
            f"got {len(charset)}, {len(set(charset))} of them different"
        )
    if not tokenizer_path.is_file():
        raise FileNotFoundError(f"no tokenizer at {tokenizer_path}")
    if folder.exists() and not _replaceable(folder):
        raise ValueError(f"folder {folder} exists and is no bundle; choose another or remove it")


def _stored(params: Mapping[str, Any], coded: Mapping[str, Coded]) -> dict[str, np.ndarray]:
    """The arrays of the weights' file, by name: floats in float16, packed codes, their scales."""
    tensors: dict[str, np.ndarray] = {}
    for path, value in tensors_lib.flatten(params):
        if path in coded:
            tensors |= quantized.tensors(path, coded[path])
        else:
            tensors[path] = _half(path, value)
    return tensors


def _json(manifest: Mapping[str, Any]) -> str:
    # NaN is no JSON: other readers would refuse the whole manifest.
    return json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def open_verified(folder: Path | str) -> tuple[dict[str, Any], config_lib.ModelConfig]:
    """Manifest and sizes of a bundle, every file of which was checked against the manifest.

    Raises:
      FileNotFoundError: no folder, no manifest, or a file of the bundle is missing.
      ValueError: a damaged or unsupported manifest, or a file whose bytes are not those written.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    verify(folder, manifest)
    # Of the values as stored: a field that was added since changes nothing.
    if config_lib.stored_sha256(manifest["config"]) != manifest["config_sha256"]:
        raise ValueError(f"{folder / MANIFEST} is damaged: its config does not match config_sha256")
    stored = legacy.config(manifest["config"])
    config = config_lib.from_dict(config_lib.ModelConfig, stored, "model.")
    characters = manifest["charset"]
    if not len(characters) == len(set(characters)) == config.charset_size:
        raise ValueError(
            f"{folder / MANIFEST} is damaged: charset must hold {config.charset_size} different "
            f"characters, got {len(characters)}, {len(set(characters))} of them different"
        )
    return manifest, config


def load(folder: Path | str) -> Bundle:
    """Reads a bundle with its weights; raises what `open_verified` does."""
    folder = Path(folder)
    manifest, config = open_verified(folder)
    params, coded, rules = _read(folder, manifest)
    return Bundle(folder, manifest, config, params, coded, rules, folder / TOKENIZER)


def _read(
    folder: Path, manifest: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Coded], tuple[Rule, ...]]:
    """Weights as floats, the quantized ones as codes, and the rules they follow."""
    damaged = f"{folder / MANIFEST} is damaged"
    # Types as stored: they tell codes (uint8) and scales (float32) from weights (float16).
    stored = dict(tensors_lib.flatten(tensors_lib.read(folder / WEIGHTS, floats=False)))
    plain, coded, rules = quantized.read(stored, manifest, damaged)
    if wild := [path for path, value in plain.items() if not np.isfinite(value).all()]:
        raise ValueError(f"{folder / WEIGHTS} is damaged: {wild[0]} holds what is no number")
    count = sum(value.size for value in plain.values())
    if count != manifest["parameters"]:
        raise ValueError(
            f"{damaged}: {WEIGHTS} holds {count} parameters, the manifest says "
            f"{manifest['parameters']}"
        )
    return tensors_lib.unflatten(plain), coded, rules


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A copy of a bundle to change; it takes the bundle's place at the end, unless that failed."""
    folder = folder.resolve()
    temporary = paths.temporary_beside(folder)
    try:
        shutil.copytree(folder, temporary)
        yield temporary
        _swap(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def add(folder: Path, file: Path) -> None:
    """Names a file that an exporter wrote into a bundle in its manifest, with size and hash.

    A bundle whose manifest does not fit its files is refused, so change a `staged` one.
    """
    manifest = read_manifest(folder)
    manifest["files"][file.name] = sha256_file(file)
    manifest["bytes"][file.name] = file.stat().st_size
    with paths.written_whole(folder / MANIFEST) as partial:
        partial.write_text(_json(manifest), encoding="utf-8")


def read_manifest(folder: Path | str) -> dict[str, Any]:
    """Reads and checks manifest.json alone; `verify` checks the files it names.

    Raises:
      FileNotFoundError: no such bundle.
      ValueError: not JSON, an unsupported schema version, or fields missing or of another type.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not folder.is_dir():
        aside = _left_aside(folder)
        hint = f"; a stopped export left it as {aside[-1]}: rename that" if aside else ""
        raise FileNotFoundError(f"no model bundle at {folder}: there is no such folder{hint}")
    if not path.is_file():
        raise FileNotFoundError(f"no model bundle at {folder}: {MANIFEST} is missing")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    # RecursionError: of brackets within brackets without end.
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    manifest_lib.check(path, manifest)
    return manifest


def verify(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Compares every file of a bundle with the manifest.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file was cut short or changed, or the manifest lacks one a bundle needs.
    """
    files = manifest["files"]
    for file in (TOKENIZER, WEIGHTS):
        if file not in files:
            raise ValueError(f"{folder / MANIFEST} is damaged: files does not name {file}")
    for file, digest in files.items():
        path = folder / file
        # A manifest from elsewhere must not have files outside its folder read.
        if Path(file).name != file:
            raise ValueError(f"{folder / MANIFEST} is damaged: {file!r} is not a plain file name")
        if not path.is_file():
            raise FileNotFoundError(f"model bundle {folder} is incomplete: {file} is missing")
        # The size first: a download that was cut short is told from a changed file.
        expected, size = manifest["bytes"].get(file), path.stat().st_size
        if size != expected:
            raise ValueError(
                f"{path} is damaged: it has {size} bytes, the manifest says {expected}"
            )
        if sha256_file(path) != digest:
            raise ValueError(f"{path} is damaged: its sha256 is not the one in the manifest")


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _half(path: str, value: np.ndarray) -> np.ndarray:
    if not np.issubdtype(value.dtype, np.floating):
        raise ValueError(f"parameter {path} must be floating point, got {value.dtype}")
    largest = float(np.max(np.abs(value), initial=0.0))
    # Not `largest > ...`, which is false for NaN.
    if not largest <= float(np.finfo(np.float16).max):
        raise ValueError(f"parameter {path} has a value float16 cannot hold: {largest}")
    return np.asarray(value, dtype=np.float16, order="C")  # ascontiguousarray gives numbers an axis


def _replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / MANIFEST).is_file() or not any(folder.iterdir()))


def _swap(temporary: Path, folder: Path) -> None:
    """Puts `temporary` in the place of `folder`; the old one comes back if that fails.

    A process that is killed between the two renames leaves the old one aside: `_left_aside`.
    """
    if folder.exists():
        # Two renames: one cannot replace a folder that holds something.
        old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}{ASIDE}")
        os.rename(folder, old)
        try:
            temporary.rename(folder)
        except BaseException:  # an interrupt as well
            if not folder.exists():
                os.rename(old, folder)
            raise
    else:
        temporary.rename(folder)
    # Those of earlier calls that were killed among them.
    for old in _left_aside(folder):
        shutil.rmtree(old, ignore_errors=True)


def _left_aside(folder: Path) -> list[Path]:
    """Older bundles of a folder that were moved aside to make room."""
    # Escaped: to glob, a folder's name may be a pattern.
    return sorted(folder.parent.glob(f".{glob.escape(folder.name)}.{'[0-9a-f]' * 32}{ASIDE}"))
