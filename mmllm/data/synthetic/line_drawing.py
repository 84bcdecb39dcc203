"""Draws one line of text as a small colour picture: font, ink, ground, skew, blur, noise, JPEG.

Needs only Pillow and numpy. Used by the text-line corpus and, for signs, by the composites.
"""

import functools
import io
import math
import random
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Colour = tuple[int, int, int]

MAX_PX = 64
MIN_CONTRAST = 80.0  # between the lumas of ink and ground, of 255
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of R, G, B: ITU-R BT.601


@functools.lru_cache(maxsize=256)
def open_font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    """Opens a font at a size in pixels; the basic layout is the same on every machine."""
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def coverage(
    text: str, font: ImageFont.FreeTypeFont, pads: tuple[int, int, int, int], spacing: float = 0.0
) -> Image.Image | None:
    """Returns how much ink lies on each pixel (mode L), or None if the font draws nothing.

    Args:
      text: one line.
      font: the font at its size.
      pads: empty pixels left, above, right and below the ink.
      spacing: extra pixels between characters.
    """
    pens = [0.0]
    # Character by character only where it must be: drawn whole, a word has its kerning.
    if spacing:
        pens = [font.getlength(text[:i]) + i * spacing for i in range(len(text))]
    segments = list(text) if spacing else [text]
    boxes = [font.getbbox(segment) for segment in segments]
    left = min(pen + box[0] for pen, box in zip(pens, boxes, strict=True))
    right = max(pen + box[2] for pen, box in zip(pens, boxes, strict=True))
    top, bottom = min(box[1] for box in boxes), max(box[3] for box in boxes)
    width, height = int(np.ceil(right - left)), int(np.ceil(bottom - top))
    if width <= 0 or height <= 0:
        return None
    mask = Image.new("L", (width + pads[0] + pads[2], height + pads[1] + pads[3]), 0)
    draw = ImageDraw.Draw(mask)
    for pen, segment in zip(pens, segments, strict=True):
        draw.text((pads[0] + pen - left, pads[1] - top), segment, font=font, fill=255)
    return mask if mask.getbbox() is not None else None


def luma(colour: Colour) -> float:
    """Returns the brightness of a colour, 0 to 255."""
    return float(np.dot(LUMA, colour))


def colours(rng: random.Random) -> tuple[Colour, Colour]:
    """Returns ink and ground: mostly dark on light, sometimes light on dark or two mid tones."""
    kind = rng.random()
    if kind < 0.30:
        shade, dark = rng.randint(200, 255), rng.randint(0, 70)
        return (dark,) * 3, (shade,) * 3
    # Drawn again until it can be read: a line nobody can read has no right answer.
    while True:
        ink = (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))
        ground = (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))
        if kind < 0.70:
            ground = (255 - ground[0] // 4, 255 - ground[1] // 4, 255 - ground[2] // 4)
        elif kind < 0.85:
            ground = (ground[0] // 3, ground[1] // 3, ground[2] // 3)
        if abs(luma(ink) - luma(ground)) >= MIN_CONTRAST:
            return ink, ground


def ground_of(
    colour: Colour, height: int, width: int, rng: random.Random
) -> Float[np.ndarray, "y x 3"]:
    """Returns the ground: one colour, a slope of light, or soft blotches."""
    ground = np.empty((height, width, 3), np.float32)
    ground[:] = colour
    kind = rng.random()
    if kind < 0.18:
        slope = np.linspace(-1, 1, width, dtype=np.float32) * rng.uniform(-28, 28)
        rise = np.linspace(-1, 1, height, dtype=np.float32) * rng.uniform(-18, 18)
        ground += (slope[None, :] + rise[:, None])[..., None]
    elif kind < 0.34:
        coarse = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(4, 20), (3, 9))
        blotches = Image.fromarray(coarse.astype(np.float32)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        ground += np.asarray(blotches)[..., None]
    return ground


def warped(mask: Image.Image, rng: random.Random) -> Image.Image:
    """Returns the ink turned a little, sheared or waved."""
    if rng.random() < 0.35:
        mask = mask.rotate(rng.uniform(-2.2, 2.2), Image.Resampling.BILINEAR, expand=True)
    if rng.random() < 0.25:
        shear = rng.uniform(-0.25, 0.25)
        extra = int(abs(shear) * mask.height)
        offset = -shear * mask.height if shear > 0 else 0.0
        mask = mask.transform(
            (mask.width + extra, mask.height),
            Image.Transform.AFFINE,
            (1, shear, offset, 0, 1, 0),
            Image.Resampling.BILINEAR,
        )
    if rng.random() < 0.06:
        mask = waved(mask, rng)
    return mask


def waved(mask: Image.Image, rng: random.Random) -> Image.Image:
    """Returns the ink with its columns moved up and down along a slow wave."""
    depth = rng.uniform(0.03, 0.09) * mask.height
    pad = int(np.ceil(depth))
    # Only empty rows may be rolled over the edge.
    pixels = np.pad(np.asarray(mask), ((pad, pad), (0, 0)))
    period = rng.uniform(3, 9) * mask.height
    phase = rng.uniform(0, 2 * np.pi)
    columns = np.arange(pixels.shape[1])
    moves = np.round(depth * np.sin(2 * np.pi * columns / period + phase)).astype(np.int64)
    rows = (np.arange(pixels.shape[0])[:, None] + moves[None]) % pixels.shape[0]
    return Image.fromarray(pixels[rows, columns[None]])


def draw_plain_line(text: str, path: Path) -> UInt8[np.ndarray, "y x 3"] | None:
    """Returns a line of text in black on white, 32 px, or None if the font draws nothing."""
    mask = coverage(text, open_font(path, 32), (6, 5, 6, 5))
    return None if mask is None else np.repeat(255 - np.asarray(mask)[..., None], 3, axis=2)


def draw_line(
    text: str, path: Path, rng: random.Random, smallest_px: int = 12
) -> UInt8[np.ndarray, "y x 3"] | None:
    """Returns a line of text as a camera or a screen might show it, or None if it is empty.

    Args:
      text: 1 to 24 characters that the font can draw.
      path: the font file.
      rng: the only source of chance; the same state gives the same pixels.
      smallest_px: the font's size is drawn between this and MAX_PX, small ones more often.
    """
    size = round(math.exp(rng.uniform(math.log(smallest_px), math.log(MAX_PX))))
    left, top, right, bottom = (
        max(1, round(size * rng.uniform(0.02, limit))) for limit in (0.5, 0.3, 0.5, 0.3)
    )
    spacing = rng.uniform(-0.03, 0.18) * size if rng.random() < 0.05 else 0.0
    mask = coverage(text, open_font(path, size), (left, top, right, bottom), spacing)
    if mask is None:
        return None
    mask = warped(mask, rng)
    if rng.random() < 0.35:
        mask = mask.filter(ImageFilter.GaussianBlur(size * rng.uniform(0.008, 0.035)))
    ink, ground = colours(rng)
    alpha = np.asarray(mask, np.float32)[..., None] / 255
    pixels = ground_of(ground, mask.height, mask.width, rng)
    pixels += alpha * rng.uniform(0.8, 1.0) * (np.array(ink, np.float32) - pixels)
    if rng.random() < 0.03:  # underlined
        row = min(mask.height - 1, mask.height - max(1, bottom // 2))
        pixels[row : row + max(1, size // 16)] = ink
    return worn(pixels, size, rng)


def worn(
    pixels: Float[np.ndarray, "y x 3"], size: int, rng: random.Random
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the pixels after sensor noise, low resolution and an early JPEG, each by chance."""
    if rng.random() < 0.5:
        noise = np.random.default_rng(rng.getrandbits(32))
        grain = noise.standard_normal(pixels.shape[:2], np.float32)[..., None]
        pixels = pixels + grain * rng.uniform(1, 13)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    if size > 22 and rng.random() < 0.15:
        # Down to 14 px a letter can still be read.
        share = rng.uniform(max(0.35, 14 / size), 0.8)
        small = (max(4, round(image.width * share)), max(4, round(image.height * share)))
        image = image.resize(small, Image.Resampling.BILINEAR)
    if rng.random() < 0.15:
        coded = io.BytesIO()
        image.save(coded, "JPEG", quality=rng.randint(25, 70))
        image = Image.open(coded)
    return np.asarray(image)


def jpeg(pixels: UInt8[np.ndarray, "y x 3"], quality: int = 92) -> bytes:
    """Returns the picture as JPEG."""
    coded = io.BytesIO()
    Image.fromarray(pixels).save(coded, "JPEG", quality=quality)
    return coded.getvalue()
