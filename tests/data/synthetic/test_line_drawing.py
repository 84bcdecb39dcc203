import io
import random

import numpy as np
import pytest
from PIL import Image

from mmllm.data.synthetic import line_drawing
from tests.data.synthetic.toy_fonts import write_font


@pytest.fixture
def font(tmp_path):
    return write_font(tmp_path / "font.ttf")


def test_a_plain_line_is_black_on_white(font):
    pixels = line_drawing.draw_plain_line("Hello 42", font)
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    assert pixels.min() == 0
    assert pixels.max() == 255
    assert (pixels[:4] == 255).all()
    assert (pixels[:, :5] == 255).all()


def test_a_line_depends_on_its_seed_alone(font):
    lines = [line_drawing.draw_line("word", font, random.Random(3)) for _ in range(2)]
    other = line_drawing.draw_line("word", font, random.Random(4))
    assert np.array_equal(*lines)
    assert other.shape != lines[0].shape or not np.array_equal(other, lines[0])


def test_lines_keep_their_ink_and_stay_in_bounds(font):
    for seed in range(150):
        pixels = line_drawing.draw_line("Sample text", font, random.Random(seed))
        height, width, channels = pixels.shape
        assert channels == 3
        assert 5 <= height <= 200
        assert width > height
        light = pixels.astype(np.float32) @ line_drawing.LUMA
        assert np.ptp(light) > 30, seed


def test_nothing_is_drawn_for_a_blank_text(font):
    assert line_drawing.draw_plain_line(" ", font) is None


def test_ink_and_ground_can_be_told_apart():
    rng = random.Random(0)
    for _ in range(500):
        ink, ground = line_drawing.colours(rng)
        apart = abs(line_drawing.luma(ink) - line_drawing.luma(ground))
        assert apart >= line_drawing.MIN_CONTRAST
        assert all(0 <= value <= 255 for value in (*ink, *ground))


def test_padding_stands_around_the_ink(font):
    opened = line_drawing.open_font(font, 30)
    mask = np.asarray(line_drawing.coverage("H", opened, (3, 5, 7, 9)))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert rows[0] >= 5
    assert mask.shape[0] - 1 - rows[-1] >= 9
    assert columns[0] >= 3
    assert mask.shape[1] - 1 - columns[-1] >= 7


def test_spacing_makes_a_line_wider(font):
    opened = line_drawing.open_font(font, 30)
    narrow = line_drawing.coverage("wide", opened, (1, 1, 1, 1))
    wide = line_drawing.coverage("wide", opened, (1, 1, 1, 1), spacing=6.0)
    assert wide.width >= narrow.width + 3 * 6 - 2


def test_a_wave_moves_ink_but_loses_none(font):
    mask = line_drawing.coverage("wave", line_drawing.open_font(font, 40), (4, 4, 4, 4))
    waved = line_drawing.waved(mask, random.Random(1))
    assert waved.height > mask.height
    assert np.asarray(waved, np.int64).sum() == np.asarray(mask, np.int64).sum()


def test_jpeg_keeps_size_and_looks():
    pixels = np.full((20, 30, 3), 90, np.uint8)
    with Image.open(io.BytesIO(line_drawing.jpeg(pixels))) as picture:
        assert picture.format == "JPEG"
        assert picture.size == (30, 20)
        assert abs(np.asarray(picture).astype(int) - 90).max() <= 2
