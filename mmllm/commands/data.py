"""`mmllm data build | list | preview`: the corpora that models are trained on and measured with."""

import argparse
from pathlib import Path
from typing import Any

from mmllm.commands import terminal

COLUMNS = ("name", "built", "examples", "licences", "about")
SHOWN = 2  # licences of a corpus in the table


def add(commands: Any) -> None:
    """Adds the command with its three actions."""
    parser = commands.add_parser("data", help="build, list and look at corpora")
    actions = parser.add_subparsers(title="actions", metavar="<action>", required=True)

    build = actions.add_parser(
        "build", help="download and build corpora; a second run does nothing"
    )
    build.add_argument("names", nargs="+", metavar="name", help="corpora, or all")
    build.add_argument(
        "--skip-missing-clients",
        action="store_true",
        help="leave out sources whose client (npm, apt-get) this machine lacks",
    )
    build.set_defaults(run=run_build)

    listing = actions.add_parser("list", help="show the corpora, with sizes and licences")
    terminal.add_json_option(listing)
    listing.set_defaults(run=run_list)

    preview = actions.add_parser("preview", help="write a contact sheet of a corpus")
    preview.add_argument("name", help="a built corpus")
    preview.add_argument("--split", default="train", help="default train")
    preview.add_argument(
        "--count", type=terminal.positive, default=48, metavar="N", help="default 48"
    )
    preview.add_argument("--out", type=Path, metavar="FILE", help="default <name>-<split>.png")
    preview.set_defaults(run=run_preview)


def run_build(args: argparse.Namespace) -> int:
    """Builds corpora."""
    from mmllm.data.corpora import build

    build.build(args.names, skip_missing_clients=args.skip_missing_clients)
    return 0


def run_list(args: argparse.Namespace) -> int:
    """Lists corpora."""
    from mmllm.data.corpora import build

    rows = build.describe()
    if args.json:
        terminal.print_json(rows)
        return 0
    table = [[_cell(row[column]) for column in COLUMNS] for row in rows]
    terminal.print_table(COLUMNS, table)
    return 0


def run_preview(args: argparse.Namespace) -> int:
    """Writes a contact sheet."""
    from mmllm.data.corpora import build

    out = args.out or Path(f"{args.name}-{args.split}.png")
    build.preview(args.name, out, args.split, args.count)
    print(out)
    return 0


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        # A corpus may have thirty licences: the table would be one column.
        more = len(value) - SHOWN
        return ", ".join(list(value)[:SHOWN]) + (f" and {more} more (--json)" if more > 0 else "")
    return f"{value:,}" if isinstance(value, int) else "-" if value is None else str(value)
