"""What the commands share: common options, tables, JSON, progress, and loading a model."""

import argparse
import importlib.util
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mmllm.runtime.engines.registry import ENGINES

if TYPE_CHECKING:
    from mmllm.runtime.model import MobileMultiModalLLM

DEFAULT_MODEL = "nano"


class UsageError(ValueError):
    """Arguments that do not go together, which argparse cannot see."""


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Adds --model."""
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME|FOLDER",
        help=f"a model that ships with mmllm, or a bundle folder (default {DEFAULT_MODEL})",
    )


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Adds --model, --engine and --threads: what `load_model` needs."""
    add_model_option(parser)
    parser.add_argument(
        "--engine",
        choices=tuple(ENGINES),
        help="what runs the model (default: litert where the bundle has its file)",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="CPU threads of litert (default: the cores, at most 4)",
    )


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Adds --json."""
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")


def positive(text: str) -> int:
    """An argument type: a whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return value


def load_model(args: argparse.Namespace) -> "MobileMultiModalLLM":
    """Loads the model that the options of `add_model_option` name.

    JAX keeps its compiled programs in the cache folder for the next call.
    """
    from mmllm import bundle
    from mmllm.runtime import model as model_lib
    from mmllm.runtime.engines import registry

    manifest = bundle.read_manifest(model_lib.locate(args.model))
    # Notes about the processor are not for people who ask for a caption.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    engine = registry.engine_of(manifest, args.engine)
    if args.threads and engine != "litert":
        raise UsageError(f"--threads goes with the engine litert, this is {engine}")
    # Where JAX is missing, loading the model says what to install.
    if engine == "jax" and importlib.util.find_spec("jax"):
        from mmllm.common import paths
        from mmllm.runtime.engines import jax as jax_engine

        jax_engine.keep_compilations(paths.data_dir() / "jax")
    return model_lib.MobileMultiModalLLM.from_pretrained(args.model, engine, args.threads)


def print_json(value: Any) -> None:
    """Prints one JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints aligned columns; wide characters (Chinese, Japanese, emoji) count as two."""
    table = [list(header), *(list(row) for row in rows)]
    widths = [max(_width(row[i]) for row in table) for i in range(len(header))]
    for number, row in enumerate(table):
        cells = [
            cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)
        ]
        print("  ".join(cells).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))


def printable(text: str) -> str:
    """The text with control characters (a file name may hold some) made visible."""
    return "".join(
        character if unicodedata.category(character) not in ("Cc", "Cs") else ascii(character)[1:-1]
        for character in text
    )


def warn(message: str) -> None:
    """Prints a line to stderr."""
    print(f"mmllm: {printable(' '.join(message.split()))}", file=sys.stderr)


def progress(what: str) -> Callable[[int, int], None]:
    """A counter on stderr, only where a person can see it."""

    def show(done: int, total: int) -> None:
        # A log file would keep every state of the line.
        if sys.stderr.isatty() and total > 1:
            end = "\r\033[K" if done >= total else ""
            print(f"\r\033[K{what} {done}/{total}{end}", end="", file=sys.stderr, flush=True)

    return show


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
