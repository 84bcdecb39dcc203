"""Finding text lines: drawn pages with known lines, either polarity, noise, long lines, panels."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from mmllm.runtime import lines

SENTENCES = ("The quick brown fox jumps", "over the lazy dog: é, ï, j!", "under_score (42%)")
GROUND, INK = (240, 230, 210), (80, 30, 30)


def page(
    texts: Sequence[str] = SENTENCES,
    size: int = 20,
    width: int = 500,
    leading: float = 1.4,
    ground: tuple[int, int, int] = (255, 255, 255),
    colour: tuple[int, int, int] = (0, 0, 0),
) -> Image.Image:
    image = Image.new("RGB", (width, int(40 + len(texts) * size * leading)), ground)
    draw = ImageDraw.Draw(image)
    for i, text in enumerate(texts):
        draw.text((20, 20 + i * size * leading), text, fill=colour, font_size=size)
    return image


def one_line() -> Image.Image:
    image = Image.new("RGB", (180, 32), GROUND)
    ImageDraw.Draw(image).text((6, 3), "Hello world", fill=INK, font_size=22)
    return image


def noisy(image: Image.Image, sigma: float) -> Image.Image:
    pixels = np.asarray(image, np.float64)
    pixels = pixels + np.random.default_rng(0).normal(0, sigma, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("size", [12, 20, 48])
@pytest.mark.parametrize("leading", [1.15, 1.4, 2.5])
def test_each_drawn_line_is_found_once_from_top_to_bottom(size: int, leading: float):
    found = lines.find_lines(page(size=size, leading=leading, width=40 * size))
    assert len(found) == len(SENTENCES)
    tops = [line.box[1] for line in found]
    assert tops == sorted(tops)
    for i, line in enumerate(found):
        centre = (line.box[1] + line.box[3]) / 2
        assert abs(centre - (20 + (i * leading + 0.6) * size)) < 0.3 * size


@pytest.mark.parametrize(
    ("ground", "colour"),
    [
        ((20, 25, 60), (230, 230, 200)),
        ((255, 255, 0), (200, 0, 200)),
        ((120, 120, 120), (170, 170, 170)),
    ],
)
def test_any_colours_that_differ_will_do(ground, colour):
    assert len(lines.find_lines(page(ground=ground, colour=colour))) == len(SENTENCES)


def test_noise_does_not_join_or_split_lines():
    assert len(lines.find_lines(noisy(page(), 12))) == len(SENTENCES)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda image: image,
        lambda image: noisy(image, 14),
        lambda image: image.filter(ImageFilter.GaussianBlur(1.5)),
        lambda image: image.rotate(3, fillcolor=GROUND),
        lambda image: Image.eval(image, lambda value: 255 - value),
    ],
)
def test_a_picture_that_is_one_line_is_read_whole(spoil):
    (line,) = lines.find_lines(spoil(one_line()))
    assert [segment.box for segment in line.segments] == [(0, 0, 180, 32)]


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (100, 50)])
@pytest.mark.parametrize("colour", ["white", "black", "teal"])
def test_a_blank_picture_has_no_lines(size: tuple[int, int], colour: str):
    assert lines.find_lines(Image.new("RGB", size, colour)) == []


def test_a_photograph_has_no_lines_unless_it_is_shaped_like_one():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    assert lines.find_lines(Image.fromarray(pixels)) == []
    wide = Image.fromarray(pixels[:20])
    assert [line.box for line in lines.find_lines(wide)] == [(0, 0, 90, 20)]


def test_columns_are_read_one_after_the_other():
    image = Image.new("RGB", (600, 120), "white")
    draw = ImageDraw.Draw(image)
    for x in (20, 330):
        for y in (20, 60):
            draw.text((x, y), "some text", fill="black", font_size=18)
    corners = [line.box[:2] for line in lines.find_lines(image)]
    assert [(x > 300, y > 50) for x, y in corners] == [
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    ]


def test_text_on_a_panel_and_in_a_frame_is_found():
    image = Image.new("RGB", (600, 300), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 600, 70), fill=(30, 80, 160))
    draw.text((20, 15), "Header title", fill="white", font_size=30)
    draw.rectangle((20, 120, 300, 220), outline="black", width=3)
    draw.text((60, 150), "framed", fill="black", font_size=30)
    first, second = (line.box for line in lines.find_lines(image))
    assert first[3] < 70
    assert first[2] < 250
    assert 50 < second[0] < second[2] < 250


def test_rules_and_specks_are_not_text():
    image = page(SENTENCES[:1], leading=4)
    draw = ImageDraw.Draw(image)
    draw.line((20, 80, 450, 80), fill="black", width=2)
    draw.line((480, 10, 480, 100), fill="black", width=3)
    draw.point((300, 95), fill="black")
    assert len(lines.find_lines(image)) == 1


def test_a_long_line_is_cut_at_word_gaps_into_pieces_that_fit():
    text = "this is one very long line of text that will not fit in a window"
    image = page([text], size=24, width=1000)
    (line,) = lines.find_lines(image)
    assert len(line.segments) > 2
    assert [segment.joint for segment in line.segments] == [""] + [" "] * (len(line.segments) - 1)
    for segment in line.segments:
        x0, y0, x1, y1 = segment.box
        assert x1 - x0 <= lines.SQUEEZE * 8 * (y1 - y0)
    # No letter is cut: the columns between two segments are blank.
    columns = lines.ink(np.asarray(image)).max(axis=0)
    for left, right in zip(line.segments, line.segments[1:], strict=False):
        between = sorted((left.box[2], right.box[0]))
        assert not columns[between[0] : between[1]].any()
    assert not columns[: line.segments[0].box[0]].any()


def test_a_word_that_is_too_long_is_cut_without_a_space_and_without_overlap():
    image = page(["Donaudampfschifffahrtsgesellschaftskapitaenswitwe"], size=24, width=700)
    (line,) = lines.find_lines(image)
    assert len(line.segments) > 1
    assert {segment.joint for segment in line.segments} == {""}
    for left, right in zip(line.segments, line.segments[1:], strict=False):
        assert left.box[2] == right.box[0]


def test_a_large_scan_gives_boxes_in_its_own_pixels():
    small, scale = page(size=20), 8
    large = small.resize((small.width * scale, small.height * scale))
    for a, b in zip(lines.find_lines(small), lines.find_lines(large), strict=True):
        np.testing.assert_allclose(np.array(a.box) * scale, b.box, atol=2.5 * scale)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(1, 90),
    width=st.integers(1, 160),
    share=st.floats(0, 1),
)
def test_any_picture_gives_boxes_inside_it(seed: int, height: int, width: int, share: float):
    rng = np.random.default_rng(seed)
    pixels = np.where(rng.random((height, width, 1)) < share, rng.integers(0, 256, 3), 255)
    for line in lines.find_lines(Image.fromarray(pixels.astype(np.uint8))):
        for x0, y0, x1, y1 in (line.box, *(segment.box for segment in line.segments)):
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height
