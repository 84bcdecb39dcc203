"""Pictures come out upright, in RGB, alone; data URIs come out as bytes; addresses do not."""

import base64
import concurrent.futures
import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from mmllm.serve import problems
from mmllm.serve import settings as settings_lib
from mmllm.serve.guard import pictures
from tests.security import bombs

LIMITS = pictures.limits_of(settings_lib.Settings())
GOOD = bombs.good()
LOSS = 40
"""Grey levels, of 255, that a JPEG of noise may be off on average."""


def refused(call) -> problems.Problem:
    with pytest.raises(problems.Problem) as caught:
        call()
    return caught.value


def encoded(image: Image.Image, kind: str = "PNG", **how) -> pictures.Picture:
    return pictures.decode(bombs.saved(image, kind, **how), LIMITS)


def first_pixel(picture: pictures.Picture) -> object:
    return picture.image.getpixel((0, 0))


@pytest.mark.parametrize("kind", GOOD)
def test_each_format_is_decoded_to_rgb(kind):
    picture = pictures.decode(GOOD[kind], LIMITS)
    assert picture.format in settings_lib.FORMATS
    assert (picture.width, picture.height) == picture.image.size == (bombs.SIDE, bombs.SIDE)
    assert picture.image.mode == "RGB"
    off = np.asarray(picture.image, float) - np.asarray(bombs.picture(), float)
    assert np.abs(off).mean() < LOSS


def test_the_digest_is_of_pixels_and_size_and_not_of_the_file():
    image = bombs.picture()
    one, same = encoded(image), encoded(image, "WEBP", lossless=True)
    assert one.digest == same.digest
    assert len(one.digest) == 64
    assert encoded(Image.new("RGB", (4, 2))).digest != encoded(Image.new("RGB", (2, 4))).digest
    other = image.copy()
    other.putpixel((0, 0), (1, 2, 3))
    assert encoded(other).digest != one.digest


def test_the_orientation_is_applied_and_forgotten():
    image = Image.new("RGB", (40, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "where the photographer lives"
    for kind in ("JPEG", "PNG", "WEBP"):
        picture = encoded(image, kind, exif=exif)
        assert (picture.width, picture.height) == (20, 40)
        assert not picture.image.getexif()
        assert picture.image.info == {}


def test_transparency_is_laid_on_white():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert first_pixel(encoded(clear)) == (255, 255, 255)
    assert first_pixel(encoded(clear, "WEBP", lossless=True)) == (255, 255, 255)
    assert first_pixel(encoded(Image.new("LA", (8, 8), (0, 0)))) == (255, 255, 255)
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    assert first_pixel(encoded(half)) == (255, 127, 127)


def test_palettes_grey_and_single_bits_become_rgb():
    assert first_pixel(encoded(Image.new("P", (8, 8), 0))) == (0, 0, 0)
    assert first_pixel(encoded(Image.new("L", (8, 8), 77))) == (77, 77, 77)
    assert first_pixel(encoded(Image.new("1", (8, 8), 1))) == (255, 255, 255)


def test_sixteen_bits_are_scaled_and_not_clipped():
    deep = Image.fromarray(np.full((8, 8), 32_768, np.uint16))
    assert first_pixel(encoded(deep)) == (128, 128, 128)


def test_a_cmyk_photograph_keeps_its_colours():
    picture = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    red, green, blue = first_pixel(picture)
    assert red > 230
    assert max(green, blue) < 40


def test_a_photograph_with_a_second_picture_behind_it_is_its_first():
    both = bombs.saved(
        Image.new("RGB", (16, 16), "red"),
        "MPO",
        save_all=True,
        append_images=[Image.new("RGB", (8, 8), "blue")],
    )
    picture = pictures.decode(both, LIMITS)
    assert (picture.format, picture.width) == ("JPEG", 16)
    assert first_pixel(picture)[0] > 200


def test_a_png_that_is_an_animation_of_one_frame_is_a_picture():
    still = bombs.saved(bombs.picture(), "PNG", save_all=True)
    assert pictures.decode(still, LIMITS).width == bombs.SIDE


def test_sides_too_small_are_refused():
    limits = LIMITS._replace(min_side=16)
    small = bombs.saved(Image.new("RGB", (15, 400)), "PNG")
    problem = refused(lambda: pictures.decode(small, limits))
    assert (problem.code, problem.params["least"]) == ("image-too-small", 16)


def test_pixels_are_counted_before_they_are_decoded():
    limits = LIMITS._replace(max_pixels=bombs.SIDE**2 - 1)
    for data in GOOD.values():
        assert refused(lambda data=data: pictures.decode(data, limits)).code == "image-too-large"


def test_the_limits_are_those_of_the_settings():
    settings = settings_lib.Settings(max_pixels=10, max_side=9, min_side=2, formats=("PNG",))
    assert pictures.limits_of(settings) == (10_000_000, 10, 9, 2, ("PNG",))


def test_damaged_metadata_do_not_cost_the_picture():
    data = bombs.saved(bombs.picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert pictures.decode(data, LIMITS).width == bombs.SIDE


def test_threads_leave_the_filters_of_warnings_alone():
    exif = bombs.saved(bombs.picture(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\1" * 9)
    pictures.decode(exif, LIMITS)
    before = list(warnings.filters)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        digests = set(threads.map(lambda _: pictures.decode(exif, LIMITS).digest, range(64)))
    assert len(digests) == 1
    assert warnings.filters == before


# Data URIs

TEXT = base64.b64encode(GOOD["PNG"]).decode()


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"data:image/png;base64,{TEXT}",
        f"DATA:IMAGE/PNG;BASE64,{TEXT}",
        f"data:;base64,{TEXT}",
        f"data:application/octet-stream;base64,{TEXT}",
        f"data:image/png;charset=utf-8;base64,{TEXT}",
        f"  data:image/jpeg;base64, {TEXT}\n",
        base64.encodebytes(GOOD["PNG"]).decode(),
    ],
)
def test_a_data_uri_or_base64_gives_its_bytes(text):
    assert pictures.from_data_uri(text, LIMITS) == GOOD["PNG"]


@pytest.mark.parametrize(
    "text",
    [
        "http://169.254.169.254/latest/meta-data/",
        "HTTPS://example.org/cat.png",
        " \n\thttp://localhost:6379/",
        "file:///etc/passwd",
        "//example.org/cat.png",
        "//localhost:6379/",
        "//[::1]/cat",
        "\\\\server\\share\\cat.png",
        "C:\\cat.png",
        "gopher://x",
        "ftp:x",
        "blob:null/1",
        "javascript:alert(1)",
    ],
)
def test_an_address_is_refused_and_not_fetched(text):
    problem = refused(lambda: pictures.from_data_uri(text, LIMITS, "image_url"))
    assert (problem.code, problem.field) == ("url-refused", "image_url")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "=",
        "====",
        "data:image/png;base64,",
        "data:image/png,abc",
        "data:",
        "data:image/png;base64",
        "data:" + "x" * 300 + ";base64,AAAA",
        "/etc/passwd",
        "../../etc/passwd",
        TEXT[:-1],
        TEXT + "A",
        TEXT.replace("A", "-", 1),
        TEXT[:20] + "\x00" + TEXT[20:],
        TEXT[:20] + "é" + TEXT[20:],
        TEXT[:20] + "\ud800" + TEXT[20:],
        "data:image/png;base64," + TEXT.replace("+", "%2B"),
        '<img src="x">',
    ],
)
def test_what_is_no_base64_is_refused(text):
    assert refused(lambda: pictures.from_data_uri(text, LIMITS)).code == "base64-invalid"


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "image/gif", "application/pdf"])
def test_a_data_uri_of_another_type_is_refused(kind):
    problem = refused(lambda: pictures.from_data_uri(f"data:{kind};base64,{TEXT}", LIMITS))
    assert problem.code == "image-format"


def test_base64_of_too_many_bytes_is_refused_at_the_byte():
    limits = LIMITS._replace(max_bytes=1000)
    exact = base64.b64encode(b"x" * 1000).decode()
    assert len(pictures.from_data_uri(exact, limits)) == 1000
    for over in (1001, 1_000_000):
        text = base64.b64encode(b"x" * over).decode()
        problem = refused(lambda text=text: pictures.from_data_uri(text, limits))
        assert (problem.code, problem.params["limit"]) == ("body-too-large", 1000)


@given(st.binary(min_size=1, max_size=500))
@example(base64.b64decode("//A="))
def test_any_bytes_come_back_from_base64(data):
    text = base64.b64encode(data).decode()
    assert pictures.from_data_uri(text, LIMITS) == data
    assert pictures.from_data_uri("data:image/webp;base64," + text, LIMITS) == data
