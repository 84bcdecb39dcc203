"""Counts the parts of a JPEG or PNG file before a decoder walks through them.

A file of 10 MB may hold 2.5 million empty segments, which Pillow reads one by one in Python (3 s),
or 100,000 passes over the same pixels (minutes): each pass over 25 megapixels takes 0.1 s, however
little is in it. No picture that people send has as many; `pictures` refuses the others.
"""

import re

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
MAX_PARTS = 20_000
"""Segments, chunks and stray bytes; a 10 MB PNG in the usual pieces of 8 kB has 1,250."""

MAX_PASSES = 100
"""Scans of a small JPEG; encoders make 10, hand-tuned scripts some 20."""

USUAL_PASSES = 12
"""Scans of a JPEG of any size."""

MAX_PASSED_PIXELS = 300_000_000
"""Pixels times scans, where there are more scans than usual: 12 passes over 25 megapixels."""

_SCAN, _END = 0xDA, 0xD9
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # segments that declare a size
_ALONE = {0x01, *range(0xD0, 0xD8)}  # markers that no length follows
# Within a scan 0xFF is followed by 0 (a byte 0xFF), a restart marker, or more padding.
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def too_complex(data: bytes) -> bool:
    """Whether a file has more parts or passes than any picture needs.

    Files of other formats are not looked into: WebP is taken apart in C.
    """
    if data.startswith(JPEG):
        return _jpeg_too_complex(data)
    return data.startswith(PNG) and _png_too_complex(data)


def _too_many(passes: int, pixels: int) -> bool:
    return passes > MAX_PASSES or (passes > USUAL_PASSES and passes * pixels > MAX_PASSED_PIXELS)


def _jpeg_too_complex(data: bytes) -> bool:
    place, parts, passes, pixels = 2, 0, 0, 0
    while place + 4 <= len(data):
        parts += 1
        if parts > MAX_PARTS or _too_many(passes, pixels):
            return True
        if data[place] != 0xFF:
            stray = data.find(b"\xff", place, place + MAX_PARTS)
            after = min(place + MAX_PARTS, len(data)) if stray < 0 else stray
            parts, place = parts + after - place, after
            continue
        if data[place + 1] in (0x00, 0xFF):
            place += 1
            continue
        marker = data[place + 1]
        if marker == _END:
            break  # what follows is another picture, or none
        if marker in _ALONE:
            place += 2
            continue
        if marker in _FRAMES:
            height, width = data[place + 5 : place + 7], data[place + 7 : place + 9]
            pixels = max(pixels, int.from_bytes(height) * int.from_bytes(width))
        place += 2 + max(2, int.from_bytes(data[place + 2 : place + 4]))
        if marker == _SCAN:
            passes += 1
            found = _AFTER_SCAN.search(data, place)
            place = len(data) if found is None else found.start()
    return parts > MAX_PARTS or _too_many(passes, pixels)


def _png_too_complex(data: bytes) -> bool:
    place, parts = len(PNG), 0
    while place + 8 <= len(data):
        parts += 1
        if parts > MAX_PARTS:
            return True
        if data[place + 4 : place + 8] == b"IEND":
            break
        # Length, name, content and checksum.
        place += 12 + int.from_bytes(data[place : place + 4])
    return False
