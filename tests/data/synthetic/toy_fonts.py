"""Two font families and a word list in a folder of their own: no package, no network."""

from pathlib import Path

import pytest
from PIL import ImageFont

from mmllm.data import packages
from mmllm.data.synthetic import fonts

WORDS = "apple river green stone window yellow paper cloud music garden Ohio it's we go to at"


def write_font(path: Path) -> Path:
    """Writes the font that Pillow carries."""
    font = ImageFont.load_default(20)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(font.path.getvalue())
    return path


@pytest.fixture
def toy_fonts(monkeypatch, tmp_path):
    """One print family for training, one for tests; `packages.fetch` gives their folder."""
    write_font(tmp_path / "font.ttf")
    words = tmp_path / "usr/share/dict/american-english"
    words.parent.mkdir(parents=True)
    words.write_text("\n".join([*WORDS.split(), "café", *(f"word{i}" for i in range(300))]))
    names = {"train": "Known", "test": "Unseen"}
    families = tuple(
        fonts.Family("print", name, name, False, "", "fonts-hack", ("font.ttf",))
        for name in names.values()
    )
    monkeypatch.setattr(fonts, "families", lambda: families)
    monkeypatch.setattr(
        fonts.splits, "font_split", lambda name: "test" if name == "Unseen" else "train"
    )
    monkeypatch.setattr(packages, "fetch", lambda name, progress=None: tmp_path)
    return families
