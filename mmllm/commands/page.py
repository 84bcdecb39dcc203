"""Writes one self-contained HTML page of pictures with words beside them, for `demo` and `search`.

What comes from outside is escaped, pictures are data URIs, and the page may load nothing.
"""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from mmllm.common import paths

THUMBNAIL_SIDE = 320  # pixels: twice the width of a card, for sharp screens

STYLE = """
:root { color-scheme: light dark; --page: #f6f6f3; --card: #fff; --ink: #1b1c1e; --soft: #6b6f76;
  --line: #e4e4df; --good: #17794a; --bad: #b3402e; --mark: #2f5fd0 }
@media (prefers-color-scheme: dark) { :root { --page: #131416; --card: #1d1f22; --ink: #ececea;
  --soft: #9a9fa7; --line: #2e3136; --good: #5cc795; --bad: #ef8a78; --mark: #8fb0ff } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main { max-width: 1120px; margin: 0 auto; padding: 48px 24px 64px }
h1 { font-size: 34px; letter-spacing: -.02em; line-height: 1.15; margin: 0 0 8px }
h2 { font-size: 20px; letter-spacing: -.01em; margin: 48px 0 4px }
p.note { color: var(--soft); margin: 0 0 16px; max-width: 70ch }
.grid { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)) }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  overflow: hidden; margin: 0; display: flex; flex-direction: column }
.card .view { background: #fff; aspect-ratio: 4 / 3; display: flex; align-items: center;
  justify-content: center; padding: 12px; border-bottom: 1px solid var(--line) }
.card .view img { max-width: 100%; max-height: 100%; object-fit: contain }
.card figcaption { padding: 12px 14px 14px; overflow-wrap: anywhere }
.question { color: var(--soft); font-size: 14px }
.answer { font-weight: 620; font-size: 17px }
.detail { color: var(--soft); font-size: 13px; margin-top: 4px }
.good { color: var(--good) } .bad { color: var(--bad) }
footer { margin-top: 56px; padding-top: 16px; border-top: 1px solid var(--line); color: var(--soft);
  font-size: 13px }
footer ul { columns: 320px; padding-left: 18px } footer li { overflow-wrap: anywhere }
"""


class Card(NamedTuple):
    """A picture and what stands below it; `good` None shows no mark."""

    image: Image.Image
    answer: str
    question: str = ""
    detail: str = ""
    good: bool | None = None


class Section(NamedTuple):
    """A heading, a sentence, and cards."""

    title: str
    note: str
    cards: Sequence[Card]


def data_uri(image: Image.Image, side: int = THUMBNAIL_SIDE) -> str:
    """A picture, made smaller than `side`, as the text of an `img` source."""
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    forms = {}
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 88})):
        buffer = io.BytesIO()
        small.save(buffer, kind, **options)
        forms[kind] = buffer.getvalue()
    # Drawings are smaller as PNG, photographs as JPEG.
    kind = min(forms, key=lambda kind: len(forms[kind]))
    return f"data:image/{kind};base64,{base64.b64encode(forms[kind]).decode()}"


def render(title: str, note: str, sections: Sequence[Section], credits: Sequence[str] = ()) -> str:
    """The page as text."""
    body = "".join(_section(section) for section in sections)
    footer = ""
    if credits:
        rows = "".join(f"<li>{html.escape(row)}</li>" for row in credits)
        footer = f"<footer>Pictures<ul>{rows}</ul></footer>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style></head>\n"
        f'<body><main>\n<h1>{html.escape(title)}</h1>\n<p class="note">{html.escape(note)}</p>\n'
        f"{body}{footer}</main></body></html>\n"
    )


def write(path: Path, text: str) -> None:
    """Writes a page, all of it or nothing."""
    with paths.written_whole(Path(path)) as temporary:
        # Replaced: a file name that is no UTF-8 must not cost the page.
        temporary.write_text(text, encoding="utf-8", errors="replace")


def _section(section: Section) -> str:
    cards = "".join(_card(card) for card in section.cards)
    return (
        f"<section>\n<h2>{html.escape(section.title)}</h2>\n"
        f'<p class="note">{html.escape(section.note)}</p>\n'
        f'<div class="grid">\n{cards}</div>\n</section>\n'
    )


def _card(card: Card) -> str:
    mark = ""
    if card.good is not None:
        sign, kind, label = (
            ("✓", "good", "as expected") if card.good else ("✗", "bad", "not as expected")
        )
        mark = f' <span class="{kind}" role="img" aria-label="{label}">{sign}</span>'
    question = f'<div class="question">{html.escape(card.question)}</div>' if card.question else ""
    detail = f'<div class="detail">{html.escape(card.detail)}</div>' if card.detail else ""
    alternative = html.escape(card.question or card.answer, quote=True)
    return (
        '<figure class="card"><div class="view">'
        f'<img src="{data_uri(card.image)}" alt="{alternative}"></div>'
        f'<figcaption>{question}<div class="answer">{html.escape(card.answer)}{mark}</div>'
        f"{detail}</figcaption></figure>\n"
    )
