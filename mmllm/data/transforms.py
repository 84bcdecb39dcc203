"""Views of pictures and text lines for training: how one artist's picture becomes many.

Stands between the corpora and the pipeline. The functions take their chance from a generator, so
a seed fixes every pixel. Text and pictures that questions about sides refer to are never mirrored:
ask `may_flip`. Which augmentation a corpus gets stands in its registry entry, under a name of
`AUGMENTATIONS`.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from mmllm.data import images, tables

TRANSFORMS_VERSION = 1  # raise it with any change of a pixel: cached features follow

Rgb = UInt8[np.ndarray, "y x 3"]
Square = UInt8[np.ndarray, "{side} {side} 3"]
Picture = UInt8[np.ndarray, "y x c"]  # RGB, or with transparency
Lines = UInt8[np.ndarray, "b y x"]

_CANVAS = 160  # px; cut-outs are stored, and so restyled, at this size
# Words of captions that a mirror image would belie: sides, and anything written.
_SIDED = re.compile(
    r"\b(left|right|clockwise|anticlockwise|counterclockwise|back|next|previous|east|west|forward"
    r"|north\w*|south\w*|letters?|words?|text|symbols?|keycap|digits?|numbers?|button|sign|mark"
    r"|clock|arrow|than|copyright|registered|hundred|flag|abc)\b|\d",
    re.IGNORECASE,
)
_COLOURED = re.compile(
    r"\b(red|orange|yellow|green|blue|purple|violet|pink|brown|black|white|gr[ae]y|gold(en)?"
    r"|silver|bronze|colou?r\w*|rainbow|flag|skin tone)\b",
    re.IGNORECASE,
)


def may_flip(caption: str) -> bool:
    """Returns whether the mirror image of a picture still deserves its English caption."""
    return _SIDED.search(caption) is None


def may_recolour(caption: str) -> bool:
    """Returns whether a picture still deserves its English caption in other colours."""
    return _COLOURED.search(caption) is None


def augment_cutout(
    rgba: Picture,
    rng: np.random.Generator,
    side: int = images.PICTURE_SIDE,
    flip: bool = False,
    recolour: bool = True,
) -> Square:
    """Draws a cut-out as another artist might: size, place, angle, style, outline and ground.

    Args:
      rgba: the picture with its transparency, of any size and aspect; RGB is opaque.
      rng: where chance comes from; nothing else does.
      side: width and height of the result, in pixels.
      flip: whether the picture may be mirrored (see `may_flip`).
      recolour: whether its colours may change (see `may_recolour`).

    Returns:
      The view, y = x = side.
    """
    figure = _place(Image.fromarray(rgba).convert("RGBA"), rng, flip)
    drawn, alpha, wants_white = _restyle(
        figure.convert("RGB"), figure.getchannel("A"), rng, recolour
    )
    if rng.random() < 0.35:  # the dark outline that many emoji artists draw
        grown = _grow(alpha, 2)
        drawn = Image.composite(drawn, Image.new("RGB", figure.size), alpha)
        alpha = grown
    ground = _ground(rng, wants_white)
    ground.paste(drawn, (0, 0), alpha)
    return np.array(ground.resize((side, side), Image.Resampling.BICUBIC))


def augment_photo(
    rgb: Rgb, rng: np.random.Generator, side: int = images.PICTURE_SIDE, flip: bool = False
) -> Square:
    """Crops a part of a photograph, mirrors if allowed, and shifts colour and light a little.

    The part has 40 to 100 % of the area and up to a third more or less of the aspect; it is fitted
    and padded as the runtime fits a whole picture, so that things keep their proportions. Scenes
    with questions about counts or places keep their frame: they get `jitter_colour` alone.

    Returns:
      The view, y = x = side.

    Source: Szegedy et al., 2015, "Going deeper with convolutions", section 6 (there from 8 % on: a
    caption tells of the whole picture, so most of it must stay).
    """
    picture = Image.fromarray(rgb)
    area = rng.uniform(0.4, 1.0)
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    # Cut at the border, an extreme aspect takes less of the area.
    width = min(1.0, (area * aspect) ** 0.5) * picture.width
    height = min(1.0, (area / aspect) ** 0.5) * picture.height
    x, y = rng.uniform(0, picture.width - width), rng.uniform(0, picture.height - height)
    fitted = max(1, round(side * width / max(width, height)))
    tall = max(1, round(side * height / max(width, height)))
    picture = picture.resize(
        (fitted, tall), Image.Resampling.BICUBIC, box=(x, y, x + width, y + height)
    )
    if flip and rng.random() < 0.5:
        picture = ImageOps.mirror(picture)
    square = Image.new("RGB", (side, side), images.WHITE)
    square.paste(picture, ((side - fitted) // 2, (side - tall) // 2))
    return jitter_colour(np.asarray(square), rng)


def jitter_colour(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    """Changes brightness, contrast and saturation by up to a fifth; the frame stays."""
    picture = Image.fromarray(rgb)
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhancer(picture).enhance(rng.uniform(0.8, 1.2))
    return np.array(picture)


def augment_line(line: Lines, rng: np.random.Generator) -> Lines:
    """Shifts, narrows, blurs, inverts, fades and roughens text lines; never mirrors them.

    Args:
      line: grey pixels as `images.to_line` makes them, the text from the left edge on.
      rng: where chance comes from; nothing else does.

    Returns:
      The views, shaped as the lines.
    """
    pixels = _soften(_warp(line, rng), rng)
    b = len(line)
    # Light on dark, which the corpus has less of.
    pixels = np.where(rng.random((b, 1, 1)) < 0.08, 255 - pixels, pixels)
    middle, spread = pixels.mean((1, 2), keepdims=True), rng.uniform(0.6, 1.25, (b, 1, 1))
    pixels = (pixels - middle) * spread.astype(np.float32) + middle
    pixels += rng.uniform(-25, 25, (b, 1, 1)).astype(np.float32)
    # A third of the draws is below 0: those lines stay without noise.
    strength = np.maximum(0, rng.uniform(-6, 12, (b, 1, 1))).astype(np.float32)
    pixels += rng.standard_normal(pixels.shape, np.float32) * strength
    return (pixels.clip(0, 255) + 0.5).astype(np.uint8)  # to the nearest: a cast rounds down


def _place(figure: Image.Image, rng: np.random.Generator, flip: bool) -> Image.Image:
    """Scales, mirrors, turns and shifts a cut-out on a transparent canvas."""
    share = rng.uniform(0.65, 1.15)  # above 1 the canvas cuts the edges off
    scale = share * _CANVAS / max(figure.size)
    size = max(1, round(figure.width * scale)), max(1, round(figure.height * scale))
    figure = figure.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if flip and rng.random() < 0.3:
        figure = ImageOps.mirror(figure)
    reach = _CANVAS * (0.06 + max(0, 1 - share) / 2)  # small figures move further
    x, y = (round((_CANVAS - n) / 2 + rng.uniform(-reach, reach)) for n in size)
    canvas = Image.new("RGBA", (_CANVAS, _CANVAS))
    canvas.paste(figure, (x, y))
    if rng.random() < 0.5:
        canvas = canvas.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR)
    return canvas


def _restyle(
    drawn: Image.Image, alpha: Image.Image, rng: np.random.Generator, recolour: bool
) -> tuple[Image.Image, Image.Image, bool]:
    """Redraws in one of five styles. The last result: whether it wants a white ground."""
    # The styles and their strengths looked right on contact sheets (`corpora.preview`).
    style = rng.random()
    if not recolour:  # the colours are the message
        drawn = ImageOps.posterize(drawn, int(rng.integers(2, 4))) if style < 0.2 else drawn
        return drawn, alpha, False
    if style < 0.2:  # lines only, dark on white
        # On white first: transparent pixels are black underneath and would give false edges.
        grey = Image.composite(ImageOps.grayscale(drawn), Image.new("L", drawn.size, 255), alpha)
        edges, ink = grey.filter(ImageFilter.FIND_EDGES), rng.uniform(1, 3)
        lines = edges.point([max(0, round(255 - ink * level)) for level in range(256)])
        return lines.convert("RGB"), _grow(alpha, 1), rng.random() < 0.5
    if style < 0.35:
        return ImageOps.grayscale(drawn).convert("RGB"), alpha, False
    if style < 0.6:
        return _shift_hue(drawn, rng), alpha, False
    if style < 0.75:
        return ImageOps.posterize(drawn, int(rng.integers(2, 4))), alpha, False
    return drawn, alpha, False


def _grow(alpha: Image.Image, radius: int) -> Image.Image:
    """Dilates by a square; shifted maxima in numpy are ten times faster than a rank filter."""
    grown = np.asarray(alpha)
    for _ in range(radius):
        for axis in (0, 1):
            padded = np.pad(grown, [(1, 1) if n == axis else (0, 0) for n in (0, 1)])
            shifted = [padded.take(range(k, k + grown.shape[axis]), axis) for k in range(3)]
            grown = np.maximum.reduce(shifted)
    return Image.fromarray(grown)


def _shift_hue(drawn: Image.Image, rng: np.random.Generator) -> Image.Image:
    hue, saturation, value = drawn.convert("HSV").split()
    shift = int(rng.integers(-25, 26))  # of 256: up to 35 degrees
    hue = hue.point([(level + shift) % 256 for level in range(256)])
    more, bright = rng.uniform(0.3, 1.6), rng.uniform(0.7, 1.3)
    saturation = saturation.point([min(255, round(level * more)) for level in range(256)])
    value = value.point([min(255, round(level * bright)) for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _ground(rng: np.random.Generator, wants_white: bool) -> Image.Image:
    """White half of the time, else one colour, or a few that run into each other."""
    kind, size = rng.random(), (_CANVAS, _CANVAS)
    if wants_white or kind < 0.5:
        return Image.new("RGB", size, images.WHITE)
    if kind < 0.8:
        return Image.new("RGB", size, tuple(int(level) for level in rng.integers(0, 256, 3)))
    patches = rng.integers(0, 256, (*rng.integers(1, 5, 2), 3), np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BILINEAR)


def _warp(line: Lines, rng: np.random.Generator) -> Float32[np.ndarray, "b y x"]:
    """Moves each line by up to 2 px down and 3 px right, and narrows it by up to 12 %."""
    b, height, width = line.shape
    # To the left by 1 px at most: the text starts at that edge and would lose its first letter.
    down, right = rng.integers(-2, 3, (b, 1)), rng.uniform(-1, 3, (b, 1))
    # Narrower only: wider, a full line would lose its end.
    stretch = np.where(rng.random((b, 1)) < 0.5, rng.uniform(1, 1.14, (b, 1)), 1)
    rows = (np.arange(height) - down).clip(0, height - 1)
    columns = ((np.arange(width) - right) * stretch).clip(0, width - 1)
    first = columns.astype(np.int64)
    share = (columns - first).astype(np.float32)[:, None]
    moved = line[np.arange(b)[:, None], rows]
    near = np.take_along_axis(moved, first[:, None], 2).astype(np.float32)
    far = np.take_along_axis(moved, np.minimum(first + 1, width - 1)[:, None], 2)
    return near + (far - near) * share


def _soften(
    pixels: Float32[np.ndarray, "b y x"], rng: np.random.Generator
) -> Float32[np.ndarray, "b y x"]:
    """Blurs half of the lines: a 1-2-1 kernel along both axes, each by a share of its own."""
    share = np.maximum(0, rng.uniform(-1, 1, (len(pixels), 1, 1))).astype(np.float32) * 0.5
    for axis in (1, 2):
        padded = np.pad(pixels, [(1, 1) if n == axis else (0, 0) for n in range(3)], mode="edge")
        if axis == 1:
            beside = padded[:, :-2] + padded[:, 2:]
        else:
            beside = padded[:, :, :-2] + padded[:, :, 2:]
        pixels = pixels + (beside / 2 - pixels) * share
    return pixels


def _drawing(image: Any, rng: np.random.Generator, side: int, caption: str) -> Square:
    return augment_cutout(image, rng, side, flip=may_flip(caption), recolour=may_recolour(caption))


def _scene(image: Any, rng: np.random.Generator, side: int, caption: str) -> Square:
    del caption  # Nothing is mirrored: questions ask for sides.
    return jitter_colour(images.to_square(image, side), rng)


def _photo(image: Any, rng: np.random.Generator, side: int, caption: str) -> Square:
    opaque = image if image.shape[-1] == 3 else images.to_square(image, max(image.shape[:2]))
    return augment_photo(opaque, rng, side, flip=may_flip(caption))


def _none(image: Any, rng: np.random.Generator, side: int, caption: str) -> Square:
    del rng, caption
    return images.to_square(image, side)


# Each takes a picture (y, x, 3 or 4), a generator, the side in pixels and the English caption.
AUGMENTATIONS: dict[str, Callable[[Any, np.random.Generator, int, str], Square]] = {
    "drawing": _drawing,
    "scene": _scene,
    "photo": _photo,
    "none": _none,
}


def picture_view(
    element: Any, view: int, rng: np.random.Generator, side: int, augmentation: str
) -> Square:
    """One view of a corpus picture: plain for 0, augmented otherwise.

    Args:
      element: an example with "image" and, where it has one, a caption.
      view: 0 for the picture exactly as the runtime sees a file.
      rng: where chance comes from; nothing else does.
      side: pixels.
      augmentation: a name of `AUGMENTATIONS`.

    Raises:
      ValueError: an unknown augmentation.
    """
    if augmentation not in AUGMENTATIONS:
        allowed = ", ".join(AUGMENTATIONS)
        raise ValueError(f"augmentation must be one of {allowed}, got {augmentation!r}")
    # Nothing is drawn for the plain view, so that it is the same for every seed.
    if view == 0:
        return images.to_square(element["image"], side)
    captions = tables.captions_of(element)
    # Without a caption nothing says that sides do not matter: "left" forbids to mirror.
    caption = captions[0][1] if captions else "left"
    return AUGMENTATIONS[augmentation](element["image"], rng, side, caption)
