"""Pages: everything from outside is escaped, and nothing is loaded from outside."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmllm.commands import page

NASTY = '<script>alert("1")</script>&\'"'


class Reader(HTMLParser):
    """Collects tags, sources and text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.alternatives: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        if tag == "img":
            self.sources.append(values["src"] or "")
            self.alternatives.append(values["alt"] or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture
def text() -> str:
    image = Image.new("RGB", (900, 600), "red")
    cards = [
        page.Card(image, NASTY, NASTY, NASTY, good=True),
        page.Card(image, "plain", good=False),
        page.Card(image, "unmarked"),
    ]
    return page.render(NASTY, NASTY, [page.Section(NASTY, NASTY, cards)], [NASTY])


def test_what_comes_from_outside_is_escaped(text: str):
    read = Reader(text)
    assert "script" not in read.tags
    assert read.words.count(NASTY) == 8
    assert read.alternatives[0] == NASTY


def test_the_page_loads_nothing(text: str):
    assert all(source.startswith("data:image/") for source in Reader(text).sources)
    assert "default-src 'none'" in text
    assert "http://" not in text
    assert "https://" not in text


def test_marks_say_whether_an_answer_was_expected(text: str):
    assert text.count("✓") == 1
    assert text.count("✗") == 1


def test_pictures_are_small_and_whole(text: str):
    head, _, data = Reader(text).sources[0].partition(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (320, 213)
        assert np.asarray(image.convert("RGB"))[5, 5, 0] > 240


def test_a_page_is_written_whole(tmp_path: Path, text: str):
    page.write(tmp_path / "new" / "page.html", text)
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == text
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]
