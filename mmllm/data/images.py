"""Opens pictures from anywhere and shapes them for the model, with numpy and Pillow alone.

The first step of both training and the runtime, so that a picture means the same pixels in both.
"""

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS = 50_000_000  # the largest phone cameras in common use; 150 MB once decoded
WHITE = (255, 255, 255)
PICTURE_SIDE = 224
LINE_HEIGHT, LINE_WIDTH = 32, 256


@runtime_checkable
class BinaryFile(Protocol):
    """Anything whose read() gives bytes."""

    def read(self) -> Any:
        """The bytes."""
        ...


ImageSource: TypeAlias = str | os.PathLike | bytes | BinaryFile | Image.Image | np.ndarray

_ORIENTATION = 0x0112  # the EXIF tag
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# First bytes of files that people do pass, so that the error can say what they are.
_KNOWN_STRANGERS = (
    (b"%PDF", "a PDF document"),
    (b"%!PS", "an EPS or PostScript drawing"),
    (b"\xc5\xd0\xd3\xc6", "an EPS drawing"),
    (b"<svg", "an SVG drawing"),
    (b"<html", "a web page"),
    (b"<!doctype html", "a web page"),
)


def open_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Opens a picture as upright 8-bit RGB.

    The first frame of an animation is taken, the EXIF orientation applied, transparency laid on
    white, 16-bit samples scaled to 8 bits, and CMYK and palettes converted to RGB.

    Args:
      source: a path, the bytes of a file, a binary file object, a Pillow image, or an array of
        uint8 shaped (y, x), (y, x, 1), (y, x, 3) or (y, x, 4).
      max_pixels: the largest width x height accepted, checked before any pixel is decoded.

    Returns:
      A Pillow image of mode RGB that shares nothing with the source.

    Raises:
      FileNotFoundError: no file at the path.
      TypeError: a source of none of these kinds.
      ValueError: an empty, truncated, unknown or too large picture.
    """
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source, max_pixels), "the array")
    if isinstance(source, Image.Image):
        _check_size(source, max_pixels, "the image")
        return _decode(source, "the image")
    data, name = _read(source)
    with warnings.catch_warnings():
        # Pillow warns about sizes, which are checked here, and about damaged metadata.
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError:
            raise ValueError(
                f"{name} has more than {max_pixels} pixels; make it smaller first"
            ) from None
        except Exception as error:  # decoders raise almost anything on hostile bytes
            raise ValueError(_not_an_image(data, name)) from error
        with image:
            _check_size(image, max_pixels, name)
            return _decode(image, name)


def to_square(
    image: ImageSource, side: int = PICTURE_SIDE, background: Sequence[int] = WHITE
) -> UInt8[np.ndarray, "{side} {side} 3"]:
    """Fits a picture into a square, its aspect kept, centred on the background.

    Args:
      image: anything `open_image` takes.
      side: width and height of the result, in pixels.
      background: the RGB of the bars, 0 to 255.

    Returns:
      The pixels, y = x = side.
    """
    image = open_image(image)
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    if image.size != (width, height):
        # reducing_gap shrinks photographs by whole factors first: ten times faster.
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    if (width, height) == (side, side):
        return np.array(image)
    square = Image.new("RGB", (side, side), tuple(background))
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return np.array(square)


def to_line(
    image: ImageSource, height: int = LINE_HEIGHT, width: int = LINE_WIDTH
) -> UInt8[np.ndarray, "{height} {width}"]:
    """Fits a picture of one text line into the wide grey picture that the line reader takes.

    The aspect is kept, except that a line too wide is squeezed; a short line is padded on the
    right with its background, the median of its four corners.

    Args:
      image: anything `open_image` takes.
      height: of the result, in pixels.
      width: of the result, in pixels.

    Returns:
      Grey values, (y, x) = (height, width).
    """
    grey = open_image(image).convert("L")
    fitted = min(width, max(1, round(grey.width * height / grey.height)))
    pixels = np.asarray(grey.resize((fitted, height), Image.Resampling.BILINEAR, reducing_gap=3.0))
    line = np.full((height, width), background_grey(pixels), np.uint8)
    line[:, :fitted] = pixels
    return line


def background_grey(pixels: UInt8[np.ndarray, "y x"]) -> int:
    """Returns the median of the four 3 x 3 px corners, the likely ground of a text line."""
    # The median, so that a letter in one corner does not count.
    ends = (slice(None, 3), slice(-3, None))
    corners = [pixels[rows, columns].ravel() for rows in ends for columns in ends]
    return int(np.median(np.concatenate(corners)))


def _read(source: str | os.PathLike | bytes | BinaryFile) -> tuple[bytes, str]:
    """Returns the bytes of a source and the name that errors call it by."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        name = f"image {str(path)!r}"
        if not path.exists():
            raise FileNotFoundError(f"{name} does not exist")
        if not path.is_file():
            raise ValueError(f"{name} is not a file")
        data = path.read_bytes()
    elif isinstance(source, bytes):
        data, name = bytes(source), "the image"
    elif hasattr(source, "read"):
        data, name = source.read(), "the image file"
        if not isinstance(data, bytes):
            raise TypeError(f"{name} must be opened in binary mode ('rb'), got text")
    else:
        raise TypeError(
            "image must be a path, bytes, a binary file, a Pillow image or a uint8 array, "
            f"got {type(source).__name__}"
        )
    if not data:
        raise ValueError(f"{name} is empty (0 bytes)")
    return data, name


def _not_an_image(data: bytes, name: str) -> str:
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    found = next((what for mark, what in _KNOWN_STRANGERS if start.startswith(mark.lower())), "")
    if not found and start.startswith(b"<?xml") and b"<svg" in data[:4096].lower():
        found = "an SVG drawing"
    if not found and start[4:8] == b"ftyp":
        found = "a HEIC, AVIF or video file"
    reads = ", ".join(FORMATS)
    if found:
        return f"{name} is {found}; convert it to PNG or JPEG (formats read: {reads})"
    return f"{name} is damaged or not an image (formats read: {reads})"


def _check_size(image: Image.Image, max_pixels: int, name: str) -> None:
    width, height = image.size
    if width * height == 0:
        raise ValueError(f"{name} has no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise ValueError(
            f"{name} has {width} x {height} pixels, more than {max_pixels}; make it smaller first"
        )


def _decode(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
    except Exception as error:  # decoders raise almost anything on hostile bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{name} is truncated or damaged: {reason}") from error
    transpose = _TRANSPOSE.get(_orientation(image))
    rgb = _to_rgb(image, name)
    return rgb if transpose is None else rgb.transpose(transpose)


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation; damaged metadata counts as none, as in browsers."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # as above: metadata parsers raise almost anything
        return 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Converts any mode to RGB, transparency laid on white."""
    if image.mode.startswith("I"):
        image = _sixteen_to_eight(image, name)
    if image.mode == "La":  # Pillow turns this one into nothing else
        image = image.convert("LA")
    if image.mode in ("F", "LAB"):
        raise ValueError(f"{name} has pixels of mode {image.mode}; convert it to 8-bit RGB")
    if image.has_transparency_data:
        cut_out = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (*WHITE, 255))
        return Image.alpha_composite(ground, cut_out).convert("RGB")
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def _sixteen_to_eight(image: Image.Image, name: str) -> Image.Image:
    """Scales 16-bit grey to 8 bits; Pillow's own conversion clips instead."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"{name} has 32-bit pixels; convert it to 8 or 16 bits")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def _from_array(pixels: np.ndarray, max_pixels: int) -> Image.Image:
    if pixels.dtype != np.uint8:
        raise TypeError(
            f"image array must be uint8 (0 to 255), got {pixels.dtype}; round and cast it first"
        )
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise ValueError(
            "image array must be shaped (y, x), (y, x, 1), (y, x, 3) or (y, x, 4), "
            f"got {pixels.shape}"
        )
    if pixels.size == 0:
        raise ValueError(f"the array has no pixels (shape {pixels.shape})")
    if pixels.shape[0] * pixels.shape[1] > max_pixels:
        raise ValueError(
            f"the array has {pixels.shape[1]} x {pixels.shape[0]} pixels, more than {max_pixels}; "
            "make it smaller first"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))
