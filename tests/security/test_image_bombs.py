"""The image-bomb set: each file is refused for the right reason, or only its pixels are left."""

import contextlib

import pytest
from PIL import Image

from mmllm.serve import problems
from mmllm.serve import settings as settings_lib
from mmllm.serve.guard import pictures
from tests.security import bombs

LIMITS = pictures.limits_of(settings_lib.Settings())
GOOD = bombs.good()
CUTS = 40


def refusal(data: bytes, limits: pictures.Limits = LIMITS) -> str:
    with pytest.raises(problems.Problem) as caught:
        pictures.decode(data, limits)
    return caught.value.code


BOMBS = {
    "2.5 gigapixels declared": (lambda: bombs.png(50_000, 50_000), "image-too-large"),
    "the largest PNG there can be": (lambda: bombs.png(2**31 - 1, 2**31 - 1), "image-too-large"),
    "one pixel too wide": (lambda: bombs.png(10_001, 1), "image-too-large"),
    "one pixel too high": (lambda: bombs.png(1, 10_001), "image-too-large"),
    "a row too many": (lambda: bombs.png(5_001, 5_000), "image-too-large"),
    "144 megapixels in 20 kB": (lambda: bombs.flat_png(12_000, 12_000), "image-too-large"),
    "JPEG of 4 gigapixels": (lambda: bombs.declared_jpeg(65_500, 65_500), "image-too-large"),
    "JPEG with a huge side": (lambda: bombs.declared_jpeg(65_500, 8), "image-too-large"),
    "WebP of 268 megapixels": (lambda: bombs.declared_webp(16_384, 16_384), "image-too-large"),
    "no width": (lambda: bombs.png(0, 8), "image-truncated"),
    "no pixels": (lambda: bombs.png(8, 8), "image-truncated"),
    "5,000 passes": (lambda: bombs.passes(5_000), "image-too-complex"),
    "a million comments": (lambda: bombs.segments(b"\xff\xfe\0\2", 10**6), "image-too-complex"),
    "a million segments": (lambda: bombs.segments(b"\xff\xef\0\2", 10**6), "image-too-complex"),
    "4 MB of padding": (lambda: bombs.segments(b"\xff", 4 * 10**6), "image-too-complex"),
    "4 MB of junk": (lambda: bombs.segments(b"\1", 4 * 10**6), "image-too-complex"),
    "300,000 chunks": (lambda: bombs.chunks(300_000), "image-too-complex"),
    "30 MB of text": (bombs.text_bomb, "image-truncated"),
    "30 MB of colour profile": (bombs.profile_bomb, "image-truncated"),
    "animated PNG": (lambda: bombs.animated("PNG"), "image-animated"),
    "animated WebP": (lambda: bombs.animated("WEBP"), "image-animated"),
    "WebP of a wrong size": (bombs.webp_of_wrong_size, "image-truncated"),
    "nothing": (lambda: b"", "not-an-image"),
    "zeros": (lambda: b"\0" * 10_000, "not-an-image"),
    "a web page": (lambda: bombs.HTML, "not-an-image"),
    "a script before a PNG": (lambda: bombs.PHP + GOOD["PNG"], "not-an-image"),
    "an archive before a JPEG": (lambda: b"PK\3\4" + GOOD["JPEG"], "not-an-image"),
    "the mark of a JPEG": (lambda: b"\xff\xd8\xff", "image-truncated"),
    "the mark of a PNG": (lambda: bombs.PNG_MARK, "image-truncated"),
    "the mark of a WebP": (lambda: b"RIFF\0\0\0\0WEBP", "image-truncated"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_its_right_name(name):
    make, code = BOMBS[name]
    assert refusal(make()) == code


def test_the_largest_picture_allowed_is_decoded():
    picture = pictures.decode(bombs.flat_png(5_000, 5_000), LIMITS)
    assert (picture.width, picture.height) == (5_000, 5_000)


@pytest.mark.parametrize(("name", "data"), list(bombs.strangers()))
def test_other_formats_are_refused_whatever_they_hold(name, data):
    assert refusal(data) == "image-format", name


@pytest.mark.parametrize(("name", "data"), list(bombs.polyglots()))
def test_of_a_polyglot_only_the_pixels_are_left(name, data):
    picture = pictures.decode(data, LIMITS)
    pixels = picture.image.tobytes()
    assert len(pixels) == bombs.SIDE * bombs.SIDE * 3, name
    assert b"alert" not in pixels
    assert picture.image.info == {}
    assert not picture.image.getexif()
    again = bombs.saved(picture.image, "PNG")
    assert b"alert" not in again
    assert b"php" not in again


@pytest.mark.parametrize("kind", GOOD)
def test_a_truncated_file_is_refused_or_lost_nothing(kind):
    data, whole = GOOD[kind], pictures.decode(GOOD[kind], LIMITS).digest
    accepted = []
    for cut in {len(data) * part // CUTS for part in range(CUTS)} | {len(data) - 1, len(data) - 2}:
        with contextlib.suppress(problems.Problem):
            assert pictures.decode(data[:cut], LIMITS).digest == whole, cut
            accepted.append(cut)
    # Only what follows the last pixel may be missing.
    assert all(cut > 0.9 * len(data) for cut in accepted), accepted


def test_a_format_can_be_switched_off():
    only_png = LIMITS._replace(formats=("PNG",))
    assert refusal(GOOD["JPEG"], only_png) == "image-format"
    assert pictures.decode(GOOD["PNG"], only_png).format == "PNG"


def test_pillow_s_own_limits_are_left_as_they_are():
    assert Image.MAX_IMAGE_PIXELS == 89_478_485
