"""`mmllm export`: a training run becomes a bundle, a bundle gets the files of other runtimes."""

import argparse
import json
from pathlib import Path
from typing import Any

from mmllm.commands import terminal
from mmllm.export.targets.registry import TARGETS

FOLDER = Path("report")


def add(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "export",
        help="turn a training run into a model bundle, or add a runtime's file to a bundle",
        description="mmllm export RUN BUNDLE writes a bundle; mmllm export BUNDLE --to litert "
        "adds its LiteRT file, once its weights, its outputs and the layers it was converted from "
        "were compared with the bundle's in JAX.",
    )
    parser.add_argument(
        "source", type=Path, metavar="RUN", help="folder of a training run; of a bundle with --to"
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", metavar="BUNDLE", help="where the bundle will stand"
    )
    parser.add_argument("--to", choices=tuple(TARGETS), help="add this runtime's file to a bundle")
    parser.add_argument(
        "--scores", type=Path, metavar="FILE", help="results of `mmllm bench` for the manifest"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FOLDER",
        help=f"with --to: parity.json and parity.md, the file against JAX (default {FOLDER})",
    )
    parser.add_argument(
        "--unfinished",
        action="store_true",
        help="take the newest checkpoint of a run that stopped before its last step",
    )
    terminal.add_json_option(parser)
    parser.set_defaults(run=run)


def _read_scores(path: Path) -> dict[str, float]:
    """The headline scores of a result of `mmllm bench`."""
    from mmllm.evaluate import scores as scores_lib

    try:
        scores = scores_lib.manifest_scores(json.loads(path.read_text(encoding="utf-8")))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no result of `mmllm bench`: {error!r}") from error
    if not scores:
        raise ValueError(
            f"{path} is no result of `mmllm bench`: it has none of the headline scores"
        )
    return scores


def run(args: argparse.Namespace) -> int:
    """Writes the bundle, or the file."""
    if args.to:
        return _add_file(args)
    if args.folder is None:
        raise terminal.UsageError(
            "BUNDLE must be given: mmllm export RUN BUNDLE, or BUNDLE --to litert"
        )
    if args.report is not None:
        raise terminal.UsageError("--report goes with --to")
    from mmllm import bundle
    from mmllm.export import from_run

    # Before the bundle is written: results that cannot be read must not leave one without scores.
    scores = _read_scores(args.scores) if args.scores else None
    folder = from_run.save(args.source, args.folder, scores, unfinished=args.unfinished)
    manifest = bundle.read_manifest(folder)
    if args.json:
        terminal.print_json({"folder": str(folder), **manifest})
    else:
        total = sum(manifest["bytes"].values()) / 1e6
        print(f"written: {folder} ({manifest['parameters']:,} parameters, {total:.1f} MB)")
    return 0


def _add_file(args: argparse.Namespace) -> int:
    """Converts, checks weights and outputs against the bundle, and shows where the bytes are."""
    if args.folder is not None or args.scores is not None:
        raise terminal.UsageError("--to takes one folder, a bundle, and no --scores")
    target = TARGETS[args.to]
    exporter = target.load()
    from mmllm import bundle
    from mmllm.parity import report as parity
    from mmllm.parity import samples

    folder = args.report or FOLDER
    loaded = bundle.load(args.source)
    folder.mkdir(parents=True, exist_ok=True)  # what cannot be written is known before it is long
    with bundle.staged(args.source) as staged:
        file = exporter.export(staged, loaded)
        bundle.add(staged, file)
        found = exporter.budget(file.read_bytes())
        measured = parity.measure(staged, samples.shipped_sample())
        written = parity.write(measured, folder)
        parity.check(measured)  # after the report is written: it says where to look
    path = args.source / target.file
    if args.json:
        terminal.print_json({"file": str(path), **found, "parity": measured})
        return 0
    rows = [
        (row["part"], row["type"], f"{row['weights']:,}", f"{row['bytes'] / 1e6:.3f}")
        for row in found["rows"]
    ]
    terminal.print_table(("part", "type", "numbers", "MB"), rows)
    print(f"\n{parity.summary(measured)}")
    print(f"written: {path} ({found['bytes'] / 1e6:.2f} MB of {found['limit'] / 1e6:.0f})")
    print(f"written: {', '.join(map(str, written))}")
    return 0
