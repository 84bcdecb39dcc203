"""The bundle: a folder with everything a runtime needs, checked byte for byte when it is loaded.

    manifest.json        config, sizes, scores, data and licences, sha256 of each file
    tokenizer.model      SentencePiece
    weights.safetensors  float16, flat names such as "encoder/block_0/attention/query/kernel"

Training writes it with `save`, every runtime reads it with `load`.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mmllm
from mmllm.common import config as config_lib
from mmllm.common import tensors as tensors_lib

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.model"
WEIGHTS = "weights.safetensors"
REQUIRED_FIELDS = (
    "name",
    "config",
    "config_sha256",
    "charset",
    "languages",
    "files",
    "bytes",
    "parameters",
    "tensor_classes",
)


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A loaded bundle.

    Attributes:
      folder: where it was read from.
      manifest: the whole manifest.json.
      config: sizes of the model.
      params: nested mapping of float32 arrays.
      tokenizer_path: the verified SentencePiece file.
    """

    folder: Path
    manifest: Mapping[str, Any]
    config: config_lib.ModelConfig
    params: Mapping[str, Any]
    tokenizer_path: Path

    @property
    def fingerprint(self) -> str:
        """Changes with weights, tokenizer and sizes: the key of anything computed with them."""
        return fingerprint(self.manifest)


def fingerprint(manifest: Mapping[str, Any]) -> str:
    """Hex sha256 over the hashes of a manifest's files and of its config."""
    parts = [f"{name}:{digest}" for name, digest in sorted(manifest["files"].items())]
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
    name: str | None = None,
) -> Path:
    """Writes a bundle, all of it or nothing.

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
      name: the bundle's name; the folder's own by default.

    Returns:
      The folder.

    Raises:
      ValueError: a tensor that float16 cannot hold, a charset that does not fit the config, or a
        folder that holds something else.
      FileNotFoundError: no tokenizer file.
    """
    from mmllm.models import size  # needs JAX, which a runtime may lack

    folder, tokenizer_path = Path(folder), Path(tokenizer_path)
    if len(charset) != config.charset_size or len(set(charset)) != len(charset):
        raise ValueError(
            f"charset must hold {config.charset_size} different characters (model.charset_size), "
            f"got {len(charset)}, {len(set(charset))} of them different"
        )
    if not tokenizer_path.is_file():
        raise FileNotFoundError(f"no tokenizer at {tokenizer_path}")
    if folder.exists() and not _replaceable(folder):
        raise ValueError(f"folder {folder} exists and is no bundle; choose another or remove it")

    tensors = {path: _half(path, value) for path, value in tensors_lib.flatten(params)}
    by_class = {
        label: {"parameters": count, "bytes": 2 * count, "bits": 16}
        for label, count in size.parameters_by_class(params).items()
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        tensors_lib.write(temporary / WEIGHTS, tensors_lib.unflatten(tensors))
        shutil.copyfile(tokenizer_path, temporary / TOKENIZER)
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "name": name or folder.name,
            "created_by": f"mmllm {mmllm.__version__}",
            "config": config_lib.to_dict(config),
            "config_sha256": config_lib.sha256(config),
            "charset": charset,
            "languages": list(languages),
            "files": {file: sha256_file(temporary / file) for file in (TOKENIZER, WEIGHTS)},
            "bytes": {file: (temporary / file).stat().st_size for file in (TOKENIZER, WEIGHTS)},
            "parameters": sum(value.size for value in tensors.values()),
            "tensor_classes": by_class,
            "scores": dict(scores),
            "data": [dict(row) for row in data],
            "pretrained": [dict(row) for row in pretrained],
        }
        text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
        temporary.chmod(0o755)
        _swap(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def load(folder: Path | str) -> Bundle:
    """Reads a bundle after checking every file against the manifest.

    Raises:
      FileNotFoundError: no folder, no manifest, or a file of the bundle is missing.
      ValueError: a damaged or unsupported manifest, or a file whose bytes are not those written.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    verify(folder, manifest)
    config = config_lib.from_dict(config_lib.ModelConfig, manifest["config"], "model.")
    if config_lib.sha256(config) != manifest["config_sha256"]:
        raise ValueError(f"{folder / MANIFEST} is damaged: its config does not match config_sha256")
    return Bundle(folder, manifest, config, tensors_lib.read(folder / WEIGHTS), folder / TOKENIZER)


def read_manifest(folder: Path | str) -> dict[str, Any]:
    """Reads and checks manifest.json alone; `verify` checks the files it names.

    Raises:
      FileNotFoundError: no such bundle.
      ValueError: not JSON, an unsupported schema version, or missing fields.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not folder.is_dir():
        raise FileNotFoundError(f"no model bundle at {folder}: there is no such folder")
    if not path.is_file():
        raise FileNotFoundError(f"no model bundle at {folder}: {MANIFEST} is missing")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(manifest, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(manifest).__name__}")
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema_version {version!r}; mmllm {mmllm.__version__} reads "
            f"{SCHEMA_VERSION}: get a bundle and a package of the same generation"
        )
    missing = [field for field in REQUIRED_FIELDS if field not in manifest]
    if missing:
        raise ValueError(f"{path} is damaged: it lacks {', '.join(missing)}")
    for field in ("config", "files", "bytes", "tensor_classes"):
        if not isinstance(manifest[field], dict):
            raise ValueError(f"{path} is damaged: {field} must be an object")
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
        if Path(file).name != file:
            raise ValueError(f"{folder / MANIFEST} is damaged: {file!r} is not a plain file name")
        if not path.is_file():
            raise FileNotFoundError(f"model bundle {folder} is incomplete: {file} is missing")
        expected, got = manifest["bytes"].get(file), path.stat().st_size
        if expected != got:
            raise ValueError(f"{path} is damaged: it has {got} bytes, the manifest says {expected}")
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
    if not largest <= float(np.finfo(np.float16).max):
        raise ValueError(f"parameter {path} has a value float16 cannot hold: {largest}")
    return np.ascontiguousarray(value, dtype=np.float16)


def _replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / MANIFEST).is_file() or not any(folder.iterdir()))


def _swap(temporary: Path, folder: Path) -> None:
    """Puts `temporary` in the place of `folder`; the old one comes back if that fails."""
    if not folder.exists():
        temporary.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.old")
    os.rename(folder, old)
    try:
        temporary.rename(folder)
    except OSError:
        os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
