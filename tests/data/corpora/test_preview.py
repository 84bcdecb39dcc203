import numpy as np
import pytest
from PIL import Image

from mmllm.data.corpora import build, preview

PIXELS = np.full((64, 64, 3), 200, np.uint8)


def test_the_contact_sheet_is_a_picture_with_a_cell_each(toy, tmp_path):
    build.build(["toy"], progress=lambda line: None)
    path = build.preview("toy", tmp_path / "sheet.png", "train", 3)
    with Image.open(path) as sheet:
        assert sheet.width == 600
        assert len(sheet.convert("RGB").getcolors(1 << 20) or []) > 10


def test_captions_texts_and_questions_are_all_shown():
    captioned = {
        "languages": ["en", "fr"],
        "captions": ["a fox", "un renard"],
        "concept": "fox",
        "family": "noto",
    }
    assert preview.words_about(captioned) == ["a fox", "fox · noto", "fr: un renard"]
    told = {"languages": ["en"], "captions": ["a fox"]}
    assert preview.words_about(told) == ["a fox"]
    assert preview.words_about({"text": "Hello", "font": "Lato", "id": "1"}) == ["Hello", "Lato"]
    example = {"caption": "", "questions": ["what?", "where?"], "answers": ["a cat", "left"]}
    assert preview.words_about(example) == ["what? a cat", "where? left"]
    assert preview.words_about({"id": "x/1"}) == ["x/1"]


def test_a_transparent_picture_is_shown_on_white():
    clear = np.zeros((64, 64, 4), np.uint8)
    assert preview.cell({"image": clear, "id": " "}).getpixel((100, 40)) == (255, 255, 255)


def test_a_long_caption_does_not_leave_its_cell():
    cell = preview.cell({"image": PIXELS, "text": "word " * 100})
    assert cell.width == preview.CELL_WIDTH
    assert np.asarray(cell)[:, -3:].min() == 255


def test_a_count_below_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        preview.write("toy", tmp_path / "sheet.png", count=0)
