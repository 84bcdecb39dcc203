"""Builds corpora: registry packages -> TFDS builders -> ArrayRecord files, once.

Beside the records of each corpus lie attribution.jsonl (source, author and licence of every
example) and data_hash.json, whose presence says that the build is complete.
"""

import contextlib
import hashlib
import importlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from mmllm.common import paths
from mmllm.data import packages, registry, sources
from mmllm.data.corpora import preview as contact_sheet


def build(
    names: Iterable[str],
    skip_missing_clients: bool = False,
    progress: Callable[[str], None] = packages.say,
) -> list[str]:
    """Builds the named corpora; those already built are left as they are.

    Args:
      names: keys of registry.CORPORA, or "all".
      skip_missing_clients: leave out corpora whose download or drawing program is not installed,
        instead of failing.
      progress: takes one line of text at each step.

    Returns:
      The corpora built by this call.

    Raises:
      ValueError: an unknown name.
      MissingClient: a program is missing (and skip_missing_clients is False).
      BrokenDownload: a package could not be had, or is not the pinned one.
    """
    done = []
    for name in expand(names):
        module = module_of(name)
        version = str(getattr(module, registry.spec(name).builder).VERSION)
        # A builder whose VERSION was raised is built again, beside the old build.
        if sources.is_built(name) and sources.folder_of(name).name == version:
            progress(f"{name}: already built, {total(sources.describe(name))} examples")
            continue
        missing = packages.missing_clients(packages_of(module), getattr(module, "PROGRAMS", ()))
        if missing and skip_missing_clients:
            progress(f"{name}: left out, {', '.join(missing)} not installed")
            continue
        for program in missing:
            packages.require(program)
        # All of them before the long work: a missing one shows at once.
        packages.fetch_all(packages_of(module), progress)
        progress(f"{name}: building")
        _build_one(name, module)
        progress(f"{name}: built, {total(sources.describe(name))} examples")
        done.append(name)
    return done


def expand(names: Iterable[str]) -> list[str]:
    """Returns the corpora named, each once, in the order they must be built; "all" is all."""
    requested = list(names)
    for name in requested:
        if name != "all":
            registry.spec(name)
    # The registry's order: composites reads what emoji and stamps have built.
    return [name for name in registry.CORPORA if name in requested or "all" in requested]


def module_of(name: str) -> ModuleType:
    """Imports the module of a corpus (this imports tensorflow_datasets)."""
    return importlib.import_module(f"mmllm.data.corpora.{registry.spec(name).module}")


def packages_of(module: ModuleType) -> tuple[str, ...]:
    """Returns the registry packages that a corpus module is built from."""
    return tuple(getattr(module, "PACKAGES", ()))


def total(description: dict[str, Any]) -> int:
    """Returns the examples of all splits together."""
    return sum(description["splits"].values())


def describe() -> list[dict[str, Any]]:
    """Returns one row a corpus for `mmllm data list`; what is not built has None in its fields."""
    rows = []
    for name, entry in registry.CORPORA.items():
        built = sources.is_built(name)
        found = sources.describe(name) if built else {}
        rows.append(
            {
                "name": name,
                "built": built,
                "examples": total(found) if built else None,
                "splits": found.get("splits"),
                "licences": found.get("licences"),
                "hash": found.get("hash"),
                "about": entry.summary,
            }
        )
    return rows


def preview(name: str, path: Path, split: str = "train", count: int = 48) -> Path:
    """Writes a contact sheet PNG of a built corpus (see mmllm.data.corpora.preview)."""
    return contact_sheet.write(name, path, split, count)


def _build_one(name: str, module: ModuleType) -> None:
    """Writes the records, then the attribution, then the hash that marks the build complete."""
    import tensorflow_datasets as tfds

    root = paths.data_dir() / "tfds"
    make = getattr(module, registry.spec(name).builder)
    builder = make(data_dir=str(root), file_format="array_record")
    if builder.name != name:  # tfds names the folder by the class, and it would not be found again
        raise ValueError(
            f"corpus {name!r} has the builder {make.__name__}, which tfds calls {builder.name!r}: "
            "give both one name"
        )
    folder = Path(builder.data_dir)
    if folder.exists():  # whole records without a hash: an interrupted or failed earlier build
        shutil.rmtree(folder)
        builder = make(data_dir=str(root), file_format="array_record")
    # Statistics would decode every picture once more, and nothing reads them.
    config = tfds.download.DownloadConfig(compute_stats=tfds.download.ComputeStatsMode.SKIP)
    with contextlib.redirect_stdout(sys.stderr):  # tfds reports its progress to stdout
        builder.download_and_prepare(download_config=config)
    _write_records_of(name, module, builder)


def _write_records_of(name: str, module: ModuleType, builder: Any) -> None:
    """Reads a finished build once; writes attribution.jsonl and data_hash.json."""
    import tensorflow_datasets as tfds

    folder = Path(builder.data_dir)
    digest = hashlib.sha256()
    licences: Counter[str] = Counter()
    counts = {}
    features = builder.info.features.items()
    skip = {
        k: tfds.decode.SkipDecoding() for k, f in features if isinstance(f, tfds.features.Image)
    }
    with paths.written_whole(folder / sources.ATTRIBUTION_FILE) as file, file.open("w") as lines:
        for split in sorted(builder.info.splits):
            rows = builder.as_data_source(split, decoders=skip)
            counts[split] = len(rows)
            digests = []
            for start in range(0, len(rows), 512):
                stop = min(start + 512, len(rows))
                for row in rows.__getitems__(list(range(start, stop))):
                    digests.append(_digest(row))
                    credit = attribution(row, module)
                    licences[credit["licence"]] += 1
                    lines.write(json.dumps({"split": split, **credit}, ensure_ascii=False) + "\n")
            # Sorted: tfds shuffles, and the order of examples is no part of what they are.
            digest.update(f"{split}\n".encode() + b"".join(sorted(digests)))
    description = {
        "hash": digest.hexdigest(),
        "splits": {split: counts[split] for split in builder.info.splits},
        "licences": dict(licences.most_common()),
        "packages": {key: packages.PACKAGES[key].sha256 for key in packages_of(module)},
    }
    # Last: its presence says that the build is complete.
    with paths.written_whole(folder / sources.DATA_HASH_FILE) as file:
        file.write_text(json.dumps(description, indent=2) + "\n", "utf-8")


def attribution(row: dict[str, Any], module: ModuleType) -> dict[str, str]:
    """Returns id, source, author and licence of an example.

    What the example does not carry itself comes from its module's ATTRIBUTION.
    """
    given = getattr(module, "ATTRIBUTION", {})
    credit = {}
    for key in ("id", "source", "author", "licence"):
        value = row.get(key, given.get(key, ""))
        credit[key] = value.decode("utf-8") if isinstance(value, bytes) else str(value)
    return credit


def _digest(row: dict[str, Any]) -> bytes:
    """Returns the sha256 of one example, whatever the order of its features."""
    digest = hashlib.sha256()
    for key in sorted(row):
        value = row[key]
        parts = [value] if isinstance(value, (bytes, str)) else list(value)
        for part in [key, *parts]:
            data = part if isinstance(part, bytes) else str(part).encode()
            # With its length, so that "ab", "c" and "a", "bc" differ.
            digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()
