"""Composites: one to four cut-outs and perhaps a sign, pasted without overlap on a ground.

A scene knows what it shows (`Item`s with names, colours and boxes), so that scene_questions can
ask about it. Cut-outs come from the emoji and stamps corpora (`Cutouts`).
"""

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from mmllm.data import splits
from mmllm.data.synthetic import backgrounds, fonts, line_drawing, things
from mmllm.data.synthetic.things import COLOURS, SHAPE, SHAPE_COLOURS, WEIGHTS, Thing

SIDE = backgrounds.SIDE
GAP_PX = 4
MAX_THINGS = 4
# Things pasted, a sign among them -> their longest side, so that all find room.
SIZES_PX = {1: (96, 160), 2: (74, 118), 3: (62, 98), 4: (56, 84), 5: (50, 74)}
# How a number of things splits into kinds; all different is drawn DIFFERENT_SHARE more often.
MAKE_UPS = {
    1: ((1,),),
    2: ((1, 1), (2,)),
    3: ((1, 1, 1), (2, 1), (3,)),
    4: ((1, 1, 1, 1), (2, 1, 1), (2, 2), (3, 1), (4,)),
}
DIFFERENT_SHARE = 0.35
SIGN_SHARE = 0.25
MIN_COLOUR_DISTANCE = 90.0  # of RGB values, whose farthest are 442 apart

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Item:
    """One pasted thing: what it is, its colour if it has just one, and its box in pixels."""

    thing: Thing
    colour: str | None
    box: Box  # left, top, right, bottom

    @property
    def name(self) -> str:
        """The thing's spoken name."""
        return self.thing.name


@dataclass(frozen=True)
class Scene:
    """A picture and everything known about it."""

    pixels: UInt8[np.ndarray, "y x 3"]
    items: tuple[Item, ...]
    sign: str | None
    sign_box: Box | None
    on_photo: bool
    sources: tuple[tuple[str, str], ...]  # (package, licence) of what is pasted


@dataclass(frozen=True)
class Cutout:
    """One drawing of a thing without its empty border."""

    rgba: UInt8[np.ndarray, "y x 4"]
    source: str
    licence: str


class Cutouts:
    """The drawings of one split, by spoken name."""

    def __init__(self, corpora: Iterable[Iterable[Mapping[str, Any]]]):
        """Reads emoji and stamps examples and keeps those that show a known thing."""
        known = things.by_concept()
        self._drawings: dict[str, list[Cutout]] = {}
        self.things: list[Thing] = []
        for examples in corpora:
            for example in examples:
                thing = known.get(splits.concept_key(example["concept"]))
                if thing is None:
                    continue
                if thing.name not in self._drawings:
                    self._drawings[thing.name] = []
                    self.things.append(thing)
                self._drawings[thing.name].append(
                    Cutout(trimmed(example["image"]), example["source"], example["licence"])
                )
        # Whatever order the examples come in, the same draw gives the same thing.
        self.things.sort(key=lambda thing: thing.name)

    def draw(self, thing: Thing, rng: random.Random) -> Cutout:
        """Returns one drawing of a thing."""
        return rng.choice(self._drawings[thing.name])


@dataclass(frozen=True)
class Studio:
    """What the scenes of one split are made of.

    Attributes:
      cutouts: the drawings.
      shapes: whether plain shapes appear as well.
      words: what signs say.
      font_families: what signs are written in.
      test_grounds: unseen patterns and photographs instead of the training patterns.
    """

    cutouts: Cutouts
    shapes: bool
    words: tuple[str, ...]
    font_families: tuple[fonts.Family, ...]
    test_grounds: bool = False

    def vocabulary(self) -> list[Thing]:
        """Returns every thing that may appear."""
        return [*self.cutouts.things, *(things.shapes() if self.shapes else ())]


def trimmed(rgba: UInt8[np.ndarray, "y x 4"]) -> UInt8[np.ndarray, "h w 4"]:
    """Returns a cut-out without its transparent border."""
    # Not > 0: a faint fringe would make the box larger than what is seen.
    visible = rgba[..., 3] > 8
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    if not len(rows):
        return rgba
    return rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def draw_things(vocabulary: list[Thing], count: int, rng: random.Random) -> list[Thing]:
    """Returns `count` things of different names, none a kind of another, categories by WEIGHTS."""
    by_category: dict[str, list[Thing]] = {}
    for thing in vocabulary:
        by_category.setdefault(thing.category, []).append(thing)
    names = list(by_category)
    chosen: list[Thing] = []
    while len(chosen) < count:
        # The category first: by things alone, the largest category would fill most scenes.
        category = rng.choices(names, [WEIGHTS[name] for name in names])[0]
        thing = rng.choice(by_category[category])
        if not any(things.related(thing, other) for other in chosen):
            chosen.append(thing)
    return chosen


def compose(studio: Studio, rng: random.Random) -> Scene:
    """Returns a new scene; the same random state gives the same one."""
    noise = np.random.default_rng(rng.getrandbits(64))  # one state fixes numpy's draws too
    on_photo = studio.test_grounds and rng.random() < 0.5
    if on_photo:
        ground = backgrounds.photo(noise)
    else:
        ground = (backgrounds.test_pattern if studio.test_grounds else backgrounds.train_pattern)(
            noise
        )
    canvas = Image.fromarray(np.ascontiguousarray(ground))
    number = rng.randint(1, MAX_THINGS)
    options = MAKE_UPS[number]
    make_up = options[0] if rng.random() < DIFFERENT_SHARE else rng.choice(options)
    kinds = draw_things(studio.vocabulary(), len(make_up), rng)
    has_sign = rng.random() < SIGN_SHARE
    boxes: list[Box] = []
    sources: set[tuple[str, str]] = set()
    sign = sign_box = None
    # Before the things: on an empty canvas it surely has room, and it is not made smaller.
    if has_sign:
        sign = rng.choice(studio.words)
        sign_box = paste_sign(canvas, sign, studio.font_families, boxes, rng)
    limits = SIZES_PX[number + has_sign]
    # Only a scene whose things all have one colour can be asked for "the red object".
    tinting = rng.choices((0.0, 0.5, 1.0), (0.45, 0.3, 0.25))[0]
    items = []
    for thing, copies in zip(kinds, make_up, strict=True):
        tinted = thing.category == SHAPE or rng.random() < tinting
        for _ in range(copies):
            item = paste(canvas, studio, thing, tinted, limits, boxes, sources, rng)
            items.append(item)
    return Scene(np.asarray(canvas), tuple(items), sign, sign_box, on_photo, tuple(sorted(sources)))


def paste(
    canvas: Image.Image,
    studio: Studio,
    thing: Thing,
    tinted: bool,
    limits: tuple[int, int],
    boxes: list[Box],
    sources: set[tuple[str, str]],
    rng: random.Random,
) -> Item:
    """Pastes one thing where there is room; adds its box and its source."""
    if thing.category == SHAPE:
        mask = shape_mask(thing.name, 192)
    else:
        cutout = studio.cutouts.draw(thing, rng)
        sources.add((cutout.source, cutout.licence))
        mask = cutout.rgba
    picture = Image.fromarray(mask)
    if rng.random() < 0.5 and thing.category != SHAPE:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    size = rng.uniform(*limits)
    scale = size / max(picture.size)
    width, height = (max(6, round(length * scale)) for length in picture.size)
    # Premultiplied, or the colour of transparent pixels would bleed into the edge.
    picture = picture.convert("RGBa").resize((width, height), Image.Resampling.BILINEAR)
    angle = rng.uniform(-12, 12)
    turned = picture.rotate(angle, Image.Resampling.BICUBIC, expand=True).convert("RGBA")
    # Turning leaves empty corners, and questions about sides need the true box.
    turned = Image.fromarray(trimmed(np.asarray(turned)))
    left, top = free_place(turned.size, boxes, rng)
    if (left, top) == (-1, -1):
        turned, (left, top) = shrunk_to_fit(turned, boxes, rng)
    box = (left, top, left + turned.width, top + turned.height)
    colour = None
    if tinted:
        # After its place: the colour has to stand out from the ground there.
        around = np.asarray(canvas.crop(box), np.float32).reshape(-1, 3).mean(0)
        palette = SHAPE_COLOURS if thing.category == SHAPE else COLOURS
        colour = visible_colour(palette, around, rng)
        turned = tint(turned, palette[colour], rng)
    canvas.paste(turned, (left, top), turned)
    boxes.append(box)
    return Item(thing, colour, box)


def visible_colour(palette: Mapping[str, things.Colour], around: Any, rng: random.Random) -> str:
    """Returns the name of a colour that stands out from the ground; the farthest if none does."""
    apart = {
        name: float(np.linalg.norm(np.array(colour, np.float32) - around))
        for name, colour in palette.items()
    }
    good = [name for name, distance in apart.items() if distance >= MIN_COLOUR_DISTANCE]
    return rng.choice(good) if good else max(apart, key=lambda name: apart[name])


def tint(picture: Image.Image, colour: things.Colour, rng: random.Random) -> Image.Image:
    """Returns a drawing in shades of one colour; its inner lines stay visible."""
    pixels = np.asarray(picture).copy()
    opaque = pixels[..., 3] > 128
    light = pixels[..., :3].astype(np.float32) @ line_drawing.LUMA
    # Not the extremes, which a few outline or highlight pixels would set.
    low, high = np.percentile(light[opaque], (3, 97)) if opaque.any() else (0.0, 255.0)
    if high - low < 12:  # a silhouette: stretched, its noise would become a pattern
        shade = np.ones_like(light)
    else:
        shade = 0.62 + 0.42 * ((light - low) / (high - low)).clip(0, 1)
    base = np.array(colour, np.float32) + np.array([rng.uniform(-8, 8) for _ in range(3)])
    pixels[..., :3] = (base * shade[..., None]).clip(0, 255)
    return Image.fromarray(pixels)


def shape_mask(name: str, side: int) -> UInt8[np.ndarray, "y x 4"]:
    """Returns a plain shape as a white cut-out without border.

    Raises:
      ValueError: a shape that is not in things.SHAPES.
    """
    mask = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(mask)
    s = side - 1
    if name == "circle":
        draw.ellipse((0, 0, s, s), fill=255)
    elif name == "oval":
        draw.ellipse((0, side * 0.2, s, side * 0.8), fill=255)
    elif name == "square":
        draw.rectangle((0, 0, s, s), fill=255)
    elif name == "rectangle":
        draw.rectangle((0, side * 0.22, s, side * 0.78), fill=255)
    elif name == "cross":
        draw.rectangle((side * 0.34, 0, side * 0.66, s), fill=255)
        draw.rectangle((0, side * 0.34, s, side * 0.66), fill=255)
    elif name in _CORNERS:
        draw.polygon([(x * s, y * s) for x, y in _CORNERS[name]], fill=255)
    else:
        raise ValueError(f"shape {name!r} is unknown; allowed: {', '.join(things.SHAPES)}")
    white = Image.new("L", mask.size, 255)
    return trimmed(np.asarray(Image.merge("RGBA", (white, white, white, mask))))


def _polygon(corners: int, inner: float = 1.0) -> list[tuple[float, float]]:
    """Returns a regular polygon in the unit square; with `inner`, a star."""
    steps = corners if inner == 1.0 else 2 * corners
    points = []
    for step in range(steps):
        radius = 0.5 * (inner if inner != 1.0 and step % 2 else 1.0)
        angle = 2 * math.pi * step / steps - math.pi / 2
        points.append((0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle)))
    return points


def _heart() -> list[tuple[float, float]]:
    points = []
    # The parametric heart curve is 32 wide: 34 leaves it a margin in the unit square.
    for step in range(80):
        t = 2 * math.pi * step / 80
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((0.5 + x / 34, 0.46 - y / 34))
    return points


_CORNERS = {
    "triangle": [(0.5, 0.06), (1.0, 0.94), (0.0, 0.94)],
    "diamond": [(0.5, 0.0), (0.86, 0.5), (0.5, 1.0), (0.14, 0.5)],
    "pentagon": _polygon(5),
    "hexagon": _polygon(6),
    "star": _polygon(5, 0.42),
    "heart": _heart(),
}


def free_place(size: tuple[int, int], boxes: list[Box], rng: random.Random) -> tuple[int, int]:
    """Returns left and top of a place that touches none of the boxes, or (-1, -1)."""
    width, height = size
    if width > SIDE or height > SIDE:
        return -1, -1
    for _ in range(60):
        left, top = rng.randint(0, SIDE - width), rng.randint(0, SIDE - height)
        if all(
            left >= right + GAP_PX
            or left + width + GAP_PX <= other
            or top >= bottom + GAP_PX
            or top + height + GAP_PX <= upper
            for other, upper, right, bottom in boxes
        ):
            return left, top
    return -1, -1


def shrunk_to_fit(
    picture: Image.Image, boxes: list[Box], rng: random.Random
) -> tuple[Image.Image, tuple[int, int]]:
    """Returns the picture made smaller until there is room, with its place.

    Raises:
      RuntimeError: there is no room even at a few pixels (cannot happen with five boxes).
    """
    while min(picture.size) > 4:
        smaller = (max(3, int(picture.width * 0.88)), max(3, int(picture.height * 0.88)))
        picture = picture.resize(smaller, Image.Resampling.BILINEAR)
        place = free_place(picture.size, boxes, rng)
        if place != (-1, -1):
            return picture, place
    raise RuntimeError("no room is left on the canvas")


def paste_sign(
    canvas: Image.Image,
    text: str,
    families: tuple[fonts.Family, ...],
    boxes: list[Box],
    rng: random.Random,
) -> Box:
    """Pastes a board with a word on it; returns its box and adds it to `boxes`."""
    # The answer stays the word in lower case, however the sign writes it.
    styled = rng.choice((text, text.upper(), text.capitalize()))
    family = rng.choice([family for family in families if family.can_draw(styled)])
    styled = styled.upper() if family.upper else styled
    font = line_drawing.open_font(rng.choice(family.paths()), rng.randint(24, 36))
    mask = line_drawing.coverage(styled, font, (0, 0, 0, 0))
    if mask is None:
        raise ValueError(f"font family {family.name!r} draws nothing for {styled!r}")
    if mask.width > 150:
        height = max(8, round(mask.height * 150 / mask.width))
        mask = mask.resize((150, height), Image.Resampling.BILINEAR)
    ink, ground = line_drawing.colours(rng)
    pad = rng.randint(6, 12)
    size = (mask.width + 2 * pad, max(mask.height, 14) + 2 * pad)
    board = Image.new("RGBA", size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(board)
    edge = ink if rng.random() < 0.7 else ground
    frame = (0, 0, size[0] - 1, size[1] - 1)
    draw.rounded_rectangle(frame, rng.randint(0, 9), (*ground, 255), (*edge, 255), 2)
    board.paste((*ink, 255), (pad, (size[1] - mask.height) // 2), mask)
    left, top = free_place(board.size, boxes, rng)
    canvas.paste(board, (left, top), board)
    box = (left, top, left + board.width, top + board.height)
    boxes.append(box)
    return box
