"""Files made to hurt whoever decodes them, built here so that none lies in the repository."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, PngImagePlugin

SIDE = 48
PNG_MARK = b"\x89PNG\r\n\x1a\n"
HTML = b"<html><script>alert(document.domain)</script></html>"
PHP = b"<?php system($_GET['c']); ?>"


def picture(side: int = SIDE) -> Image.Image:
    """A picture that compresses badly enough to have bytes to cut."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (side // 4, side // 4, 3), np.uint8))
    return small.resize((side, side))


def saved(image: Image.Image, kind: str, **how) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def good() -> dict[str, bytes]:
    """One file of each format that is read."""
    image = picture()
    return {
        "JPEG": saved(image, "JPEG", quality=80),
        "progressive": saved(image, "JPEG", progressive=True),
        "PNG": saved(image, "PNG"),
        "interlaced palette": saved(image.quantize(16), "PNG"),
        "WEBP": saved(image, "WEBP", quality=80),
        "lossless": saved(image, "WEBP", lossless=True),
    }


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def png(width: int, height: int, *chunks: bytes, data: bytes = b"") -> bytes:
    """A PNG of a declared size with 1-bit grey pixels, that may be none at all."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return PNG_MARK + header + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def flat_png(width: int, height: int) -> bytes:
    """A real one: all its pixels are there, a thousandth of their size."""
    packer, rows = zlib.compressobj(9), []
    row = b"\0" * (1 + (width + 7) // 8)
    for _ in range(height):
        rows.append(packer.compress(row))
    return png(width, height, data=b"".join(rows) + packer.flush())


def declared_jpeg(width: int, height: int) -> bytes:
    """A small JPEG whose header says it is large."""
    data = bytearray(saved(picture(), "JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def declared_webp(width: int, height: int) -> bytes:
    """A lossless WebP with a header and no pixels."""
    content = b"\x2f" + struct.pack("<I", (width - 1) | ((height - 1) << 14)) + b"\0" * 32
    part = b"VP8L" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", 4 + len(part)) + b"WEBP" + part


def webp_of_wrong_size() -> bytes:
    """The container's size is not that of the file."""
    data = bytearray(saved(picture(), "WEBP"))
    data[4:8] = struct.pack("<I", 2**31)
    return bytes(data)


def text_bomb() -> bytes:
    """30 MB of text in 30 kB."""
    return png(8, 8, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"A" * 30_000_000, 6)))


def profile_bomb() -> bytes:
    """30 MB of colour profile in 30 kB."""
    return png(8, 8, chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"A" * 30_000_000, 6)))


def passes(count: int) -> bytes:
    """A progressive JPEG whose last pass is repeated."""
    data = saved(picture(), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * count + b"\xff\xd9"


def segments(filling: bytes, count: int) -> bytes:
    """A JPEG with something before its pixels, many times."""
    data = saved(picture(), "JPEG")
    place = data.index(b"\xff\xdb")
    return data[:place] + filling * count + data[place:]


def chunks(count: int) -> bytes:
    """A PNG with empty chunks."""
    data = saved(picture(), "PNG")
    place = data.index(b"IDAT") - 4
    return data[:place] + chunk(b"abCd", b"") * count + data[place:]


def animated(kind: str) -> bytes:
    """Two frames."""
    frames = [picture(), Image.new("RGB", (SIDE, SIDE), "red")]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


def polyglots() -> Iterator[tuple[str, bytes]]:
    """Pictures that are something else, too."""
    for kind, data in good().items():
        for name, tail in (("html", HTML), ("php", PHP), ("zip", b"PK\x03\x04" + b"\0" * 64)):
            yield f"{kind} then {name}", data + tail
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", (HTML + PHP).decode())
    yield "html in a PNG comment", saved(picture(), "PNG", pnginfo=info)
    yield "php in a JPEG comment", saved(picture(), "JPEG", comment=PHP)


def strangers() -> Iterator[tuple[str, bytes]]:
    """Formats that are not read, most of them harmless, some with a history."""
    image = picture()
    for kind in ("GIF", "TIFF", "BMP", "ICO", "PPM", "EPS", "PDF", "AVIF"):
        yield kind, saved(image, kind)
    yield "SVG", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
    yield "SVG with a prologue", b'<?xml version="1.0"?><!DOCTYPE svg><svg/>'
    yield "PostScript", b"%!PS\n/x { (%pipe%id) (w) file } def x"
