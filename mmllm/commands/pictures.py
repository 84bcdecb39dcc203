"""`mmllm caption`, `read` and `ask`: one or several pictures, an answer for each.

A picture that cannot be used costs one line on stderr and exit code 1; the others are answered.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mmllm.commands import terminal

if TYPE_CHECKING:
    from mmllm.runtime.model import MobileMultiModalLLM

Answer = dict[str, Any]
# Pictures that are open at a time: a folder of photographs would fill the memory.
BATCH = 64


def add(commands: Any) -> None:
    """Adds the three commands."""
    caption = commands.add_parser("caption", help="say what is in a picture")
    caption.add_argument("images", nargs="+", metavar="image", help="picture file")
    caption.add_argument(
        "--language", default="en", metavar="CODE", help="en, de, fr, ... (default en)"
    )
    _finish(caption, run_caption, beam=True)

    read = commands.add_parser("read", help="read the text in a picture with a plain background")
    read.add_argument("images", nargs="+", metavar="image", help="picture file")
    _finish(read, run_read, beam=False)

    ask = commands.add_parser("ask", help="answer a question about a picture")
    ask.add_argument("images", nargs="+", metavar="image", help="picture file")
    ask.add_argument("question", help="e.g. 'how many circles are there?'")
    _finish(ask, run_ask, beam=True)


def _finish(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], *, beam: bool
) -> None:
    if beam:
        parser.add_argument(
            "--beam",
            type=terminal.positive,
            default=1,
            metavar="N",
            help="beam width, 1 to 8 (default 1)",
        )
    terminal.add_engine_options(parser)
    terminal.add_json_option(parser)
    parser.set_defaults(run=run)


def run_caption(args: argparse.Namespace) -> int:
    """Captions pictures."""
    from mmllm import bundle
    from mmllm.runtime import model as model_lib
    from mmllm.runtime import prompts

    # The manifest alone, so that an unknown language is refused before anything is loaded.
    manifest = bundle.read_manifest(model_lib.locate(args.model))
    prompts.checked_language(args.language, manifest["languages"])

    def answer(model: "MobileMultiModalLLM", images: list[Any]) -> list[Answer]:
        found = model.scored_captions(images, args.language, beam=args.beam)
        return [
            {"language": args.language, "caption": caption.text, "score": _rounded(caption.score)}
            for caption in found
        ]

    return _run(args, answer, lambda row: [row["caption"]])


def run_ask(args: argparse.Namespace) -> int:
    """Answers one question about each picture."""
    from mmllm.runtime import prompts

    question = prompts.checked_text("question", args.question)

    def answer(model: "MobileMultiModalLLM", images: list[Any]) -> list[Answer]:
        found = model.scored_answers(images, [question] * len(images), beam=args.beam)
        return [
            {"question": question, "answer": reply.text, "score": _rounded(reply.score)}
            for reply in found
        ]

    return _run(args, answer, lambda row: [row["answer"]])


def run_read(args: argparse.Namespace) -> int:
    """Reads the lines of text in pictures."""

    def answer(model: "MobileMultiModalLLM", images: list[Any]) -> list[Answer]:
        return [
            {
                "lines": [
                    {"text": region.text, "box": list(region.box), "score": _rounded(region.score)}
                    for region in model.read_text(image)
                ]
            }
            for image in images
        ]

    def show(row: Answer) -> list[str]:
        return [line["text"] for line in row["lines"]] or ["(no text found)"]

    return _run(args, answer, show)


def _run(
    args: argparse.Namespace,
    answer: Callable[["MobileMultiModalLLM", list[Any]], list[Answer]],
    show: Callable[[Answer], list[str]],
) -> int:
    """Opens pictures, answers those that open, and prints in the order given."""
    from mmllm.runtime import decode

    beam = getattr(args, "beam", 1)
    if beam > decode.MAX_BEAM:
        raise terminal.UsageError(f"--beam must be 1 to {decode.MAX_BEAM}, got {beam}")
    rows: list[Answer] = []
    report = terminal.progress("pictures")
    model = None
    for start in range(0, len(args.images), BATCH):
        report(start, len(args.images))
        part = [{"image": path} for path in args.images[start : start + BATCH]]
        opened = dict(_opened(part))
        if opened:
            # Once a picture opens: a misspelt name need not wait for a model.
            model = model or terminal.load_model(args)
            answers = answer(model, list(opened.values()))
            for i, found in zip(opened, answers, strict=True):
                part[i].update(found)
        rows += part
    report(len(args.images), len(args.images))
    if args.json:
        terminal.print_json(rows)
    else:
        _print(rows, show)
    return 1 if any("error" in row for row in rows) else 0


def _opened(part: list[Answer]) -> Iterator[tuple[int, Any]]:
    """Yields the pictures that open with their place; the others get an "error"."""
    from mmllm.data import images as images_lib

    for i, row in enumerate(part):
        try:
            yield i, images_lib.open_image(row["image"])
        except (OSError, ValueError) as error:
            row["error"] = " ".join(str(error).split())
            terminal.warn(row["error"])


def _print(rows: list[Answer], show: Callable[[Answer], list[str]]) -> None:
    for row in rows:
        if "error" in row:
            continue
        name = f"{terminal.printable(row['image'])}: " if len(rows) > 1 else ""
        for line in show(row):
            print(f"{name}{terminal.printable(line)}")


def _rounded(score: float) -> float:
    return round(score, 4)
