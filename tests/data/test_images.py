"""Every picture that people pass, good or bad, becomes upright RGB pixels or a one-line error."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageSequence

from mmllm.data import images

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def noise(width: int = 61, height: int = 47) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message
    assert "\n" not in message
    return message


def png_header(width: int, height: int) -> bytes:
    """Builds a PNG of any claimed size whose data is a single short chunk."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


# What can be opened.


def test_every_kind_of_source_gives_the_same_pixels(tmp_path):
    picture = noise()
    data = encoded(picture, "PNG")
    path = tmp_path / "a picture.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        sources = [path, str(path), data, io.BytesIO(data), file, picture, np.asarray(picture)]
        opened = [images.open_image(source) for source in sources]
    for image in opened:
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), np.asarray(picture))


def test_an_opened_image_shares_nothing_with_its_source():
    picture = Image.new("RGB", (4, 4), RED)
    opened = images.open_image(picture)
    opened.putpixel((0, 0), (0, 0, 0))
    assert picture.getpixel((0, 0)) == RED


@pytest.mark.parametrize("format", images.FORMATS)
def test_each_format_opens(format):
    image = images.open_image(encoded(Image.new("RGB", (40, 30), RED), format))
    assert image.size == (40, 30)
    np.testing.assert_allclose(np.asarray(image), np.full((30, 40, 3), RED), atol=2)


def test_cmyk_becomes_rgb():
    picture = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    pixels = np.asarray(images.open_image(encoded(picture, "JPEG", quality=95)))
    np.testing.assert_allclose(pixels, np.full((16, 16, 3), RED), atol=4)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(format):
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    pixels = np.asarray(images.open_image(encoded(Image.fromarray(values), format)))
    np.testing.assert_array_equal(pixels[0, :, 0], [0, 1, 128, 255])
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_sixteen_bit_big_endian_grey_is_scaled():
    values = np.array([[0, 257, 32896, 65535]], ">u2")
    data = b"P5 4 1 65535\n" + values.tobytes()
    np.testing.assert_array_equal(np.asarray(images.open_image(data))[0, :, 1], [0, 1, 128, 255])


def test_sixteen_bit_rgb_opens():
    values = np.full((1, 2, 3), 65535, ">u2")
    data = b"P6 2 1 65535\n" + values.tobytes()
    np.testing.assert_array_equal(np.asarray(images.open_image(data)), 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBa", "La", "YCbCr", "HSV"])
def test_each_pillow_mode_becomes_rgb(mode):
    bare = {"RGBa": "RGBA", "La": "LA", "PA": "P"}.get(mode, mode)
    picture = Image.new("RGB", (8, 8), WHITE).convert(bare).convert(mode)
    image = images.open_image(picture)
    assert image.mode == "RGB"
    np.testing.assert_allclose(np.asarray(image), 255, atol=1)


def test_transparency_is_laid_on_white():
    picture = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (255, 0, 0, 255))
    picture.putpixel((2, 0), (255, 0, 0, 128))
    pixels = np.asarray(images.open_image(encoded(picture, "PNG")))
    np.testing.assert_allclose(pixels[0], [WHITE, RED, (255, 127, 127)], atol=1)


def test_a_palette_with_a_transparent_entry_is_laid_on_white():
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.putpixel((1, 0), 1)
    data = encoded(picture, "PNG", transparency=0)
    assert Image.open(io.BytesIO(data)).mode == "P"
    np.testing.assert_array_equal(np.asarray(images.open_image(data))[0], [WHITE, RED])


def test_a_transparent_grey_level_is_laid_on_white():
    picture = Image.fromarray(np.array([[7, 90]], np.uint8))
    pixels = np.asarray(images.open_image(encoded(picture, "PNG", transparency=7)))
    np.testing.assert_array_equal(pixels[0, :, 0], [255, 90])


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation_is_taken(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, (0, 0, 255))]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(data))))) == 2
    np.testing.assert_array_equal(np.asarray(images.open_image(data))[0, 0], RED)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright(orientation):
    upright = np.zeros((2, 3, 3), np.uint8)
    upright[0, 0] = RED
    upright[0, 2] = WHITE
    # What a camera stores for each tag: the inverse of what the viewer must do.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    np.testing.assert_array_equal(np.asarray(images.open_image(data)), upright)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\0"])
def test_damaged_metadata_does_not_stop_a_good_picture(exif):
    assert images.open_image(encoded(noise(), "JPEG", exif=exif)).size == noise().size


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_thin_pictures_open_and_fit(size):
    picture = Image.new("RGB", size, RED)
    assert images.to_square(picture).shape == (224, 224, 3)
    assert images.to_line(picture).shape == (32, 256)


# What is refused.


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png' does not exist") as error:
        images.open_image(tmp_path / "none.png")
    one_line(error)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a file"):
        images.open_image(tmp_path)


@pytest.mark.parametrize("kind", ["bytes", "path", "file"])
def test_an_empty_file_is_refused(kind, tmp_path):
    path = tmp_path / "empty.png"
    path.touch()
    source = {"bytes": b"", "path": path, "file": io.BytesIO()}[kind]
    with pytest.raises(ValueError, match="empty"):
        images.open_image(source)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_truncated_file_is_refused(format, share):
    data = encoded(noise(), format)
    with pytest.raises(ValueError, match="truncated|damaged") as error:
        images.open_image(data[: int(len(data) * share)])
    one_line(error)


def test_a_lazily_opened_truncated_pillow_image_is_refused():
    data = encoded(noise(), "PNG")
    with pytest.raises(ValueError, match="truncated"):
        images.open_image(Image.open(io.BytesIO(data[: len(data) // 2])))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_flipped_bytes_give_a_picture_or_a_one_line_value_error(format):
    good, rng = encoded(noise(), format), np.random.default_rng(0)
    messages = []
    for _ in range(100):
        data = bytearray(good)
        for place in rng.integers(0, len(data), 4):
            data[place] ^= int(rng.integers(1, 256))
        try:
            images.open_image(bytes(data), max_pixels=1_000_000)
        except ValueError as error:
            messages.append(str(error))
    assert all(message and "\n" not in message for message in messages)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"hello, I am a text file\n" * 9, "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"<?xml version='1.0'?>\n<!-- drawn by hand --><svg/>", "an SVG drawing"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "an EPS"),
        (b"\xc5\xd0\xd3\xc6" + bytes(60), "an EPS"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\x89PNG\r\n\x1a\n", "damaged or not an image"),
        (bytes(1000), "not an image"),
    ],
)
def test_a_file_that_is_no_picture_is_named_and_refused(data, what):
    with pytest.raises(ValueError, match=what) as error:
        images.open_image(data)
    assert "PNG" in one_line(error)


def test_postscript_is_refused_even_when_pillow_could_run_it():
    data = encoded(Image.new("RGB", (9, 9)), "EPS")
    with pytest.raises(ValueError, match="an EPS"):
        images.open_image(data)


@pytest.mark.parametrize("side", [10_000, 14_000, 65_535, 2**31 - 1])
def test_a_pixel_bomb_is_refused_before_it_is_decoded(side):
    with pytest.raises(ValueError, match="make it smaller|not an image") as error:
        images.open_image(png_header(side, side))
    one_line(error)


def test_a_hundred_megapixels_are_refused_by_their_size():
    with pytest.raises(ValueError, match="10000 x 10000 pixels, more than 50000000"):
        images.open_image(png_header(10_000, 10_000))


def test_max_pixels_is_inclusive_and_holds_for_every_source():
    picture = noise(10, 10)
    for source in (picture, np.asarray(picture), encoded(picture, "PNG")):
        assert images.open_image(source, max_pixels=100).size == (10, 10)
        with pytest.raises(ValueError, match="10 x 10 pixels, more than 99"):
            images.open_image(source, max_pixels=99)


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 4, 2), (4,), (1, 4, 4, 3)])
def test_an_array_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="array"):
        images.open_image(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, bool])
def test_an_array_of_another_type_is_refused(dtype):
    with pytest.raises(TypeError, match="uint8"):
        images.open_image(np.zeros((4, 4, 3), dtype))


@pytest.mark.parametrize("source", [None, 7, ["a.png"]])
def test_a_source_of_another_type_is_refused(source):
    with pytest.raises(TypeError):
        images.open_image(source)


def test_a_text_file_object_is_refused():
    with pytest.raises(TypeError):
        images.open_image(io.StringIO("hello"))


def test_float_and_32_bit_pixels_are_refused():
    with pytest.raises(ValueError, match="mode F"):
        images.open_image(encoded(Image.new("F", (4, 4), 0.5), "TIFF"))
    with pytest.raises(ValueError, match="32-bit"):
        images.open_image(encoded(Image.new("I", (4, 4), 70_000), "TIFF"))


# What the model sees.


def test_a_wide_picture_is_centred_between_bars():
    pixels = images.to_square(Image.new("RGB", (100, 50), RED), side=40)
    np.testing.assert_array_equal(pixels[:10], 255)
    np.testing.assert_array_equal(
        pixels[10:30], np.broadcast_to(np.array(RED, np.uint8), (20, 40, 3))
    )
    np.testing.assert_array_equal(pixels[30:], 255)


def test_a_tall_picture_is_centred_between_bars_of_the_background():
    pixels = images.to_square(Image.new("RGB", (5, 10), RED), side=20, background=(1, 2, 3))
    np.testing.assert_array_equal(
        pixels[:, :5], np.broadcast_to(np.array((1, 2, 3), np.uint8), (20, 5, 3))
    )
    np.testing.assert_array_equal(
        pixels[:, 5:15], np.broadcast_to(np.array(RED, np.uint8), (20, 10, 3))
    )


def test_a_square_of_the_right_size_is_returned_unchanged_and_writable():
    picture = noise(224, 224)
    pixels = images.to_square(picture)
    np.testing.assert_array_equal(pixels, np.asarray(picture))
    pixels[0, 0, 0] = 0
    assert pixels.dtype == np.uint8


def test_a_short_line_is_padded_with_its_background():
    grey = np.full((16, 40), 200, np.uint8)
    grey[4:12, 10:30] = 10
    line = images.to_line(grey)
    assert line.shape == (32, 256)
    assert line.dtype == np.uint8
    np.testing.assert_array_equal(line[:, 80:], 200)  # 40 px at twice the size
    assert line[16, 40] == 10


def test_a_long_line_is_squeezed_to_the_whole_width():
    grey = np.full((10, 1000), 255, np.uint8)
    grey[:, 960:] = 0
    line = images.to_line(grey)
    assert line[:, :240].min() > 250
    assert line[:, 250:].max() < 5


def test_the_background_of_a_line_is_the_median_of_its_corners():
    pixels = np.full((32, 64), 30, np.uint8)
    pixels[:3, :3] = 255  # one corner touched by ink
    pixels[5:27, 5:60] = 255
    assert images.background_grey(pixels) == 30


def test_pictures_and_text_need_neither_jax_nor_grain():
    # The runtime opens pictures and tokenizes with another engine than JAX, too.
    check = (
        "import sys, mmllm.data.images, mmllm.data.tokenizer; "
        "sys.exit(str({'jax', 'grain', 'tensorflow'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.stderr.strip() == ""
