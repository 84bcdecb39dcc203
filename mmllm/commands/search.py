"""`mmllm search`: pictures of a folder, those closest to some words first."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmllm.commands import terminal

if TYPE_CHECKING:
    from mmllm.commands.folder_index import Hit

SHEET_COLUMNS, SHEET_SIDE = 5, 200  # of the PNG contact sheet; the side in pixels


def add(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("search", help="find pictures in a folder by words")
    parser.add_argument("query", help="e.g. 'a red bus'")
    parser.add_argument(
        "folder", help="searched with its subfolders; remembered for the next search"
    )
    parser.add_argument(
        "--top", type=terminal.positive, default=10, metavar="N", help="how many (default 10)"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write a page with the pictures"
    )
    parser.add_argument("--png", type=Path, metavar="FILE", help="also write a contact sheet")
    terminal.add_engine_options(parser)
    terminal.add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ranks the pictures."""
    from mmllm.commands import folder_index
    from mmllm.runtime import prompts

    query = prompts.checked_text("query", args.query)
    if not Path(args.folder).is_dir():
        raise ValueError(f"{args.folder!r} is not a folder; give the folder to search in")
    model = terminal.load_model(args)
    # Before the folder, which may take minutes: a query that is too long fails at once.
    embedded = model.embed_text(query)
    index = folder_index.index_folder(
        model, args.folder, progress=terminal.progress("indexing"), warn=terminal.warn
    )
    hits = folder_index.rank(index, embedded, args.top)
    if args.html:
        _write_html(args.html, query, hits, len(index.paths))
    if args.png:
        _write_png(args.png, hits)
    if args.json:
        rows = [{"image": str(hit.path), "score": round(hit.score, 4)} for hit in hits]
        terminal.print_json({"query": query, "pictures": len(index.paths), "hits": rows})
        return 0
    rows = [
        (str(place), f"{hit.score:.3f}", terminal.printable(str(hit.path)))
        for place, hit in enumerate(hits, start=1)
    ]
    terminal.print_table(("rank", "score", "picture"), rows)
    return 0


def _write_html(path: Path, query: str, hits: "list[Hit]", count: int) -> None:
    from mmllm.commands import page
    from mmllm.data import images as images_lib

    cards = [
        page.Card(
            images_lib.open_image(hit.path), hit.path.name, detail=f"{place}. {hit.score:.3f}"
        )
        for place, hit in enumerate(hits, start=1)
    ]
    note = f"The best {len(hits)} of {count} pictures, with the cosine of picture and words."
    page.write(path, page.render(query, note, [page.Section("Found", "Best first.", cards)]))


def _write_png(path: Path, hits: "list[Hit]") -> None:
    from PIL import Image

    from mmllm.common import paths
    from mmllm.data import images as images_lib

    columns = min(SHEET_COLUMNS, len(hits))
    rows = -(-len(hits) // columns)
    sheet = Image.new("RGB", (columns * SHEET_SIDE, rows * SHEET_SIDE), "white")
    for place, hit in enumerate(hits):
        tile = Image.fromarray(
            images_lib.to_square(images_lib.open_image(hit.path), SHEET_SIDE - 8)
        )
        row, column = divmod(place, columns)
        sheet.paste(tile, (column * SHEET_SIDE + 4, row * SHEET_SIDE + 4))
    with paths.written_whole(path) as temporary:
        sheet.save(temporary, "PNG")
