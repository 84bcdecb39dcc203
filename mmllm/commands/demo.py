"""`mmllm demo`: caption, read, ask and search on the sample pictures; a table and a page."""

import argparse
import time
from pathlib import Path
from typing import Any

from mmllm.commands import terminal

MARKS = {True: "yes", False: "no", None: ""}


def add(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("demo", help="try everything on the pictures that ship with mmllm")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo.html"),
        metavar="FILE",
        help="the page (default demo.html)",
    )
    parser.add_argument(
        "--sample", type=Path, metavar="FOLDER", help="other pictures with a sample.json"
    )
    terminal.add_engine_options(parser)
    terminal.add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the sample."""
    from mmllm.commands import trials
    from mmllm.runtime import sample

    pictures = sample.load(args.sample or sample.SAMPLE)
    model = terminal.load_model(args)
    start = time.perf_counter()
    rows = trials.run(model, pictures, terminal.progress("demo"))
    seconds = time.perf_counter() - start
    trials.write_page(args.out, rows, model.manifest["name"])
    if args.json:
        terminal.print_json(
            {
                "model": model.manifest["name"],
                "page": str(args.out),
                "seconds": round(seconds, 3),
                "rows": [_json_row(row) for row in rows],
            }
        )
        return 0
    table = [
        (
            row.trial.task,
            row.picture.path.name,
            row.trial.question or (row.trial.language if row.trial.task == "caption" else ""),
            terminal.printable(row.answer),
            MARKS[row.good],
        )
        for row in sorted(rows, key=lambda row: sample.TASKS.index(row.trial.task))
    ]
    terminal.print_table(("task", "picture", "question", "answer", "as expected"), table)
    print(f"\n{trials.summary(rows)} {len(rows)} in {seconds:.1f} s.")
    print(f"Pictures beside the answers: {args.out}")
    return 0


def _json_row(row: Any) -> dict[str, Any]:
    return {
        "task": row.trial.task,
        "image": row.picture.path.name,
        "question": row.trial.question or None,
        "language": row.trial.language,
        "answer": row.answer,
        "expected": list(row.trial.expected),
        "as_expected": row.good,
    }
