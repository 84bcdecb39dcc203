"""A contact sheet of a built corpus: pictures with their captions, as one PNG to look at."""

import contextlib
import functools
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmllm.common import paths
from mmllm.data import sources

CELL_WIDTH, PICTURE_HEIGHT = 200, 150
LINE_HEIGHT, TEXT_LINES = 13, 4
MARGIN = 6
COLUMNS = 6
_GROUND, _INK, _FAINT = (255, 255, 255), (20, 20, 20), (120, 120, 120)
_TEXT_FEATURES = ("text", "caption", "concept", "font", "family")


def write(name: str, path: Path, split: str = "train", count: int = 48) -> Path:
    """Writes a contact sheet of `count` examples spread evenly over a split.

    Raises:
      FileNotFoundError: the corpus is not built.
      ValueError: it has no such split, or the count is not positive.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    corpus = sources.load(name, split)
    # Evenly, as the first examples may all be of one family.
    chosen = np.linspace(0, len(corpus) - 1, min(count, len(corpus))).round().astype(int)
    cells = [cell(corpus[int(index)]) for index in chosen]
    height = PICTURE_HEIGHT + TEXT_LINES * LINE_HEIGHT + 2 * MARGIN
    columns = min(COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * CELL_WIDTH, rows * height), _GROUND)
    for position, picture in enumerate(cells):
        sheet.paste(picture, ((position % columns) * CELL_WIDTH, (position // columns) * height))
    with paths.written_whole(Path(path)) as file:
        sheet.save(file, format="PNG")
    return Path(path)


def cell(example: dict[str, Any]) -> Image.Image:
    """Returns one cell: the picture above the words about it."""
    height = PICTURE_HEIGHT + TEXT_LINES * LINE_HEIGHT + 2 * MARGIN
    picture = Image.new("RGB", (CELL_WIDTH, height), _GROUND)
    shown = _on_white(example["image"])
    shown.thumbnail((CELL_WIDTH - 2 * MARGIN, PICTURE_HEIGHT))
    picture.paste(shown, ((CELL_WIDTH - shown.width) // 2, MARGIN))
    draw = ImageDraw.Draw(picture)
    font = _font(11)
    top = PICTURE_HEIGHT + MARGIN + 1
    for number, line in enumerate(words_about(example)[:TEXT_LINES]):
        ink = _FAINT if number else _INK
        text = _fitted(line, font, CELL_WIDTH - 2 * MARGIN)
        draw.text((MARGIN, top + number * LINE_HEIGHT), text, fill=ink, font=font)
    return picture


def words_about(example: dict[str, Any]) -> list[str]:
    """Returns the lines of text to show: captions, text, or questions with answers."""
    if "captions" in example:
        by_language = dict(zip(example["languages"], example["captions"], strict=True))
        others = [
            f"{code}: {by_language[code]}" for code in ("de", "fr", "es") if code in by_language
        ]
        about = " · ".join(example[key] for key in ("concept", "family") if example.get(key))
        return [by_language["en"], *([about] if about else []), *others]
    lines = [str(example[key]) for key in _TEXT_FEATURES if example.get(key)]
    if "questions" in example:
        pairs = zip(example["questions"], example["answers"], strict=True)
        lines += [f"{question} {answer}" for question, answer in pairs]
    return lines or [str(example.get("id", ""))]


def _on_white(pixels: np.ndarray) -> Image.Image:
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if picture.mode == "RGBA":
        ground = Image.new("RGBA", picture.size, (*_GROUND, 255))
        picture = Image.alpha_composite(ground, picture)
    return picture.convert("RGB")


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font with accents where the system has one; Pillow's own knows little beyond ASCII."""
    for name in (
        "DejaVuSans.ttf",
        "NotoSans-Regular.ttf",
        "LiberationSans-Regular.ttf",
        "Arial.ttf",
    ):
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Cuts a line so that it fits in `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
