"""`mmllm bench`: measures a model on the held-out splits, and writes results and a report."""

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

from mmllm.commands import terminal

FOLDER = Path("report")


def add(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "bench", help="measure a model on the held-out splits of the corpora"
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=[],
        metavar="ROW",
        help="rows that begin so, e.g. caption, lines, vqa/easy_vqa (default: all)",
    )
    parser.add_argument(
        "--limit", type=terminal.positive, metavar="N", help="pictures a row, for a try"
    )
    parser.add_argument(
        "--no-neighbours", action="store_true", help="leave out the nearest-neighbour baseline"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=FOLDER / "results.json",
        metavar="FILE",
        help="the results as JSON (default %(default)s)",
    )
    parser.add_argument(
        "--report",
        type=Path,
        default=FOLDER,
        metavar="FOLDER",
        help="report.md and scores.png (default %(default)s)",
    )
    parser.add_argument(
        "--losses",
        type=Path,
        metavar="FILE",
        help="metrics.jsonl of the training, for a loss curve",
    )
    terminal.add_engine_options(parser)
    terminal.add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the benchmark."""
    from mmllm.evaluate import baselines, benchmark, report

    # What is misspelt must show before the model is loaded.
    rows = benchmark.chosen(benchmark.ROWS, args.tasks)
    if args.losses and not args.losses.is_file():
        raise FileNotFoundError(f"no training log at {args.losses}")
    model = terminal.load_model(args)
    # Made when first asked for: its weights may have to be downloaded.
    backbone = functools.cache(baselines.backbone_features)
    result = benchmark.run(
        model,
        rows,
        features=None if args.no_neighbours else lambda pictures: backbone()(pictures),
        limit=args.limit,
        # With --json, stdout holds one document and nothing else.
        report=functools.partial(print, file=sys.stderr if args.json else sys.stdout, flush=True),
    )
    benchmark.write(result, args.out)
    written = report.write_report(result, args.report, args.losses)
    if args.json:
        terminal.print_json(result)
    else:
        print(f"\nwritten: {', '.join(str(path) for path in (args.out, *written))}")
    return 0
