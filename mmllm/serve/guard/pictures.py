"""Bytes of a request -> an upright RGB picture, or a `Problem`; a picture is what can be decoded.

Nothing but pixels is left of a file: what was appended, embedded or tagged never reaches the
model, a log or an answer. Addresses are never fetched.
"""

import base64
import binascii
import hashlib
import io
import re
import warnings
from typing import NamedTuple

from PIL import Image

from mmllm.data import images as images_lib
from mmllm.serve import problems
from mmllm.serve import settings as settings_lib
from mmllm.serve.guard import containers

_MARKS = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
}
# First bytes of pictures and documents that people take for pictures.
_STRANGERS = re.compile(
    rb"GIF8|BM|II\*\0|MM\0\*|\0\0[\1\2]\0|%PDF|%!PS|\xc5\xd0\xd3\xc6|8BPS|P[1-7]\s|\0\0\0\x0cjP"
    rb"|\xff\x0a|\xff\x4f\xff\x51|qoif|\x76\x2f\x31\x01|....ftyp(avif|avis|heic|heix|mif1|msf1|hevc)"
    rb"|(\xef\xbb\xbf)?\s*(<\?xml|<svg|<!doctype svg)",
    re.DOTALL | re.IGNORECASE,
)
# Base64 may begin with "//" too: an address without a scheme has a sign that base64 lacks.
_ADDRESS = re.compile(
    r"\s*(?:[a-z][a-z0-9+.\-]*:|//[a-z0-9+/=\s]*[^a-z0-9+/=\s]|\\\\)", re.IGNORECASE
)
_DATA_URI = re.compile(r"\s*data:(?P<type>[^;,]*)(?:;[^;,]*)*?;\s*base64\s*,", re.IGNORECASE)
_TYPES = {"": None, "application/octet-stream": None}
_TYPES |= {"image/jpeg": "JPEG", "image/jpg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
MAX_URI_HEAD = 200
"""Characters before the comma of a data URI."""


class Limits(NamedTuple):
    """What a picture may be: bytes, pixels in all, pixels of its sides, formats."""

    max_bytes: int
    max_pixels: int
    max_side: int
    min_side: int
    formats: tuple[str, ...]


class Picture(NamedTuple):
    """A decoded picture.

    `digest` is the SHA-256 of its size and pixels, so that the same picture in another file has the
    same; `width` and `height` are upright pixels, `format` that of the file.
    """

    image: Image.Image
    digest: str
    width: int
    height: int
    format: str


def limits_of(settings: settings_lib.Settings) -> Limits:
    """The limits that settings hold."""
    return Limits(
        settings.max_body_bytes,
        settings.max_pixels,
        settings.max_side,
        settings.min_side,
        settings.formats,
    )


def decode(data: bytes, limits: Limits) -> Picture:
    """Decodes a file whole; blocks for a second on a large photograph, two on the worst file.

    Args:
      data: of the file.
      limits: checked before any pixel is decoded.

    Raises:
      problems.Problem: image-format, not-an-image, image-too-large, image-too-small,
        image-animated, image-too-complex or image-truncated.
    """
    name = next((name for name, mark in _MARKS.items() if mark.match(data)), None)
    if name not in limits.formats:
        if name is None and not _STRANGERS.match(data):
            raise problems.Problem("not-an-image")
        raise problems.Problem("image-format", formats=limits.formats)
    if containers.too_complex(data):
        raise problems.Problem("image-too-complex")
    _silence_pillow()
    try:
        opened = Image.open(io.BytesIO(data), formats=(name,))
    except Image.DecompressionBombError:
        raise _too_large(limits) from None
    except Exception as error:  # decoders raise almost anything on hostile bytes
        raise problems.Problem("image-truncated") from error
    with opened:
        _check(opened, limits)
        try:
            upright = images_lib.open_image(opened, limits.max_pixels)
        except ValueError as error:
            raise problems.Problem("image-truncated") from error
    # A new picture from nothing but pixels: Pillow's copies take the metadata along.
    pixels = upright.tobytes()
    width, height = upright.size
    digest = hashlib.sha256(f"{width}x{height}:".encode() + pixels).hexdigest()
    return Picture(Image.frombytes("RGB", upright.size, pixels), digest, width, height, name)


def from_data_uri(text: str, limits: Limits, field: str = "image") -> bytes:
    """The bytes that a data URI or plain base64 holds; they are not yet looked at.

    Args:
      text: `data:image/png;base64,...` or the base64 alone, with or without line breaks.
      limits: its max_bytes bounds the result.
      field: of the request, for the error.

    Raises:
      problems.Problem: url-refused, image-format, base64-invalid or body-too-large.
    """
    head = text[:MAX_URI_HEAD]
    start = 0
    if found := _DATA_URI.match(head):
        start = found.end()
        if _TYPES.get(found["type"].strip().lower(), "other") not in (None, *limits.formats):
            raise problems.Problem("image-format", field=field, formats=limits.formats)
    elif re.match(r"\s*data:", head, re.IGNORECASE):
        raise problems.Problem("base64-invalid", field=field)
    elif _ADDRESS.match(head):
        raise problems.Problem("url-refused", field=field)
    if (len(text) - start) // 4 * 3 > 2 * limits.max_bytes:  # even if half of it were line breaks
        raise problems.Problem("body-too-large", field=field, limit=limits.max_bytes)
    try:
        data = base64.b64decode("".join(text[start:].split()), validate=True)
    except (binascii.Error, ValueError):
        raise problems.Problem("base64-invalid", field=field) from None
    if not data:
        raise problems.Problem("base64-invalid", field=field)
    if len(data) > limits.max_bytes:
        raise problems.Problem("body-too-large", field=field, limit=limits.max_bytes)
    return data


def _check(opened: Image.Image, limits: Limits) -> None:
    """Refuses by what the file declares."""
    width, height = opened.size
    if width * height > limits.max_pixels or max(width, height) > limits.max_side:
        raise _too_large(limits)
    if min(width, height) < max(1, limits.min_side):
        raise problems.Problem(
            "image-too-small", width=width, height=height, least=max(1, limits.min_side)
        )
    # Phones append a depth or brightness map to a JPEG ("MPO"); the first picture is the photo.
    if opened.format != "MPO" and getattr(opened, "n_frames", 1) != 1:
        raise problems.Problem("image-animated")


def _too_large(limits: Limits) -> problems.Problem:
    return problems.Problem("image-too-large", limit=limits.max_pixels, side=limits.max_side)


_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


def _silence_pillow() -> None:
    """Ignores what Pillow warns of: sizes, checked here, and damaged metadata, not used.

    `warnings.catch_warnings` would do it for this call alone, but changes a list that all threads
    share; and a text that differs each time would fill Python's memory of warnings shown.
    """
    if _QUIET not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
