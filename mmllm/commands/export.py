"""`mmllm export`: turns a training run into a bundle that every runtime reads."""

import argparse
import json
from pathlib import Path
from typing import Any

from mmllm.commands import terminal


def add(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("export", help="turn a training run into a model bundle")
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a training run")
    parser.add_argument("folder", type=Path, metavar="BUNDLE", help="where the bundle will stand")
    parser.add_argument(
        "--scores", type=Path, metavar="FILE", help="results of `mmllm bench` for the manifest"
    )
    terminal.add_json_option(parser)
    parser.set_defaults(run=run)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no result of `mmllm bench`: {error}") from error


def run(args: argparse.Namespace) -> int:
    """Writes the bundle."""
    from mmllm.evaluate import tables
    from mmllm.export import bundle, from_run

    scores = tables.manifest_scores(_read_json(args.scores)) if args.scores else None
    folder = from_run.save(args.run_folder, args.folder, scores)
    manifest = bundle.read_manifest(folder)
    if args.json:
        terminal.print_json({"folder": str(folder), **manifest})
    else:
        total = sum(manifest["bytes"].values()) / 1e6
        print(f"written: {folder} ({manifest['parameters']:,} parameters, {total:.1f} MB)")
    return 0
