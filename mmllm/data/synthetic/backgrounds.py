"""Grounds for composites: generated patterns in two families that share nothing, and photographs.

Training sees TRAIN_PATTERNS in light and mid tones; tests see TEST_PATTERNS in dark or strong
tones, and the photographs that come with Scratch.
"""

import colorsys
import functools
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from mmllm.data import packages

SIDE = 224
PHOTO_PACKAGE = "scratch"
PHOTO_FOLDER = "usr/share/scratch/Media/Backgrounds"
# Photographs without people, text or single objects that questions could be about.
PHOTOS = tuple(
    "Indoors/hall.jpg Nature/beach-malibu.jpg Nature/canyon.jpg Nature/forest.jpg "
    "Nature/garden-rock.jpg Nature/grand-canyon.jpg Nature/gravel-desert.jpg Nature/hill.jpg "
    "Nature/lake.jpg Nature/moon.jpg Nature/pathway.jpg Nature/tree.jpg "
    "Nature/water-and-rocks.jpg Nature/wave.jpg Outdoors/bench-with-view.jpg "
    "Outdoors/boardwalk.jpg Outdoors/brick-wall-and-stairs.jpg Outdoors/brick-wall1.jpg "
    "Outdoors/brick-wall2.jpg Outdoors/building-at-mit.jpg Outdoors/castle.jpg "
    "Outdoors/city-with-water2.jpg Outdoors/driveway.jpg Outdoors/hallway_outdoors.jpg "
    "Outdoors/hay_field.jpg Outdoors/mansion.jpg Outdoors/pool.jpg Outdoors/route66.jpg "
    "Outdoors/train-tracks1.jpg Outdoors/train-tracks2.jpg Outdoors/village.jpg "
    "Outdoors/wooden-house.jpg Sports/playing-field.jpg Sports/tennis-backboard.jpg".split()
)
TRAIN_PATTERNS = ("plain", "plain", "slope", "stripes", "grain", "clouds")
TEST_PATTERNS = ("checks", "dots", "rings", "plaid", "glow")

# Coordinates of every pixel, made once: each pattern is a function of them.
_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)


def train_pattern(rng: np.random.Generator) -> UInt8[np.ndarray, "y x 3"]:
    """Returns a generated ground of the training family."""
    tones = [_tone(rng, (0.0, 0.55), (0.55, 1.0)) for _ in range(2)]
    return _drawn(rng.choice(TRAIN_PATTERNS), tones, rng)


def test_pattern(rng: np.random.Generator) -> UInt8[np.ndarray, "y x 3"]:
    """Returns a generated ground of the test family."""
    dark = rng.random() < 0.5
    span = ((0.2, 0.7), (0.18, 0.5)) if dark else ((0.6, 0.95), (0.6, 0.9))
    tones = [_tone(rng, *span) for _ in range(2)]
    return _drawn(rng.choice(TEST_PATTERNS), tones, rng)


def photo_source() -> tuple[str, str]:
    """Returns (package and version, licence) of the photographs."""
    package = packages.PACKAGES[PHOTO_PACKAGE]
    return f"{package.name} {package.version}", package.licence


def photo(rng: np.random.Generator) -> UInt8[np.ndarray, "y x 3"]:
    """Returns a square cut from one of PHOTOS, flipped by chance."""
    picture = _photo(PHOTOS[rng.integers(len(PHOTOS))])
    # A part of it, so that 34 photographs give many grounds.
    short = min(picture.size)
    side = int(short * rng.uniform(0.6, 1.0))
    left, top = (int(rng.integers(length - side + 1)) for length in picture.size)
    cut = picture.crop((left, top, left + side, top + side))
    pixels = np.asarray(cut.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


@functools.cache
def _photo(name: str) -> Image.Image:
    path: Path = packages.fetch(PHOTO_PACKAGE) / PHOTO_FOLDER / name
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _tone(
    rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> Float[np.ndarray, "3"]:
    """Returns a colour of 0..255 with saturation and value between the given limits."""
    colour = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return np.array(colour, np.float32) * 255


def _drawn(
    pattern: str, tones: list[Float[np.ndarray, "3"]], rng: np.random.Generator
) -> UInt8[np.ndarray, "y x 3"]:
    """Returns the pattern as a mix of two tones, the second pulled toward the first by chance."""
    first, second = tones
    # At full contrast these would hide what is pasted on them.
    if pattern in ("grain", "stripes", "plaid", "checks", "dots"):
        second = first + (second - first) * rng.uniform(0.15, 0.7)
    mix = _PATTERNS[pattern](rng)[..., None]
    pixels = first * (1 - mix) + second * mix
    return pixels.clip(0, 255).astype(np.uint8)


def _turned(rng: np.random.Generator) -> Float[np.ndarray, "y x"]:
    """Returns the distance of every pixel along a random direction."""
    angle = rng.uniform(0, np.pi)
    return _X * np.float32(np.cos(angle)) + _Y * np.float32(np.sin(angle))


def _plain(rng: np.random.Generator) -> Float[np.ndarray, "y x"]:
    del rng
    return np.zeros((SIDE, SIDE), np.float32)


def _slope(rng: np.random.Generator) -> Float[np.ndarray, "y x"]:
    way = _turned(rng)
    return (way - way.min()) / (way.max() - way.min())


def _stripes(rng: np.random.Generator) -> Float[np.ndarray, "y x"]:
    width = rng.uniform(8, 40)
    return ((_turned(rng) / width) % 1 < rng.uniform(0.3, 0.7)).astype(np.float32)


def _grain(rng: np.random.Generator) -> Float[np.ndarray, "y x"]:
    side = int(rng.integers(28, 113))
    return _smooth(rng, side)


def _clouds(rng: np.random.Generator) -> Float[np.ndarray, "y x"]:
    return _smooth(rng, int(rng.integers(3, 8)))


def _smooth(rng: np.random.Generator, side: int) -> Float[np.ndarray, "y x"]:
    """Returns noise of `side` x `side` values, enlarged smoothly."""
    coarse = Image.fromarray(rng.random((side, side), dtype=np.float32))
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).clip(0, 1)


def _checks(rng: np.random.Generator) -> Float[np.ndarray, "y x"]:
    size = rng.uniform(12, 40)
    return ((_X // size + _Y // size) % 2).astype(np.float32)


def _dots(rng: np.random.Generator) -> Float[np.ndarray, "y x"]:
    size = rng.uniform(14, 36)
    away = np.hypot(_X % size - size / 2, _Y % size - size / 2)
    return (away < size * rng.uniform(0.2, 0.4)).astype(np.float32)


def _rings(rng: np.random.Generator) -> Float[np.ndarray, "y x"]:
    centre = rng.uniform(0, SIDE, 2)
    away = np.hypot(_X - centre[0], _Y - centre[1])
    return (0.5 + 0.5 * np.sin(away / rng.uniform(4, 14))).astype(np.float32)


def _plaid(rng: np.random.Generator) -> Float[np.ndarray, "y x"]:
    size, part = rng.uniform(16, 48), rng.uniform(0.2, 0.6)
    across = ((_X / size) % 1 < part).astype(np.float32)
    return (across + ((_Y / size) % 1 < part)) / 2


def _glow(rng: np.random.Generator) -> Float[np.ndarray, "y x"]:
    centre = rng.uniform(0.2 * SIDE, 0.8 * SIDE, 2)
    away = np.hypot(_X - centre[0], _Y - centre[1])
    return np.exp(-((away / rng.uniform(60, 140)) ** 2)).astype(np.float32)


_PATTERNS = {
    "plain": _plain,
    "slope": _slope,
    "stripes": _stripes,
    "grain": _grain,
    "clouds": _clouds,
    "checks": _checks,
    "dots": _dots,
    "rings": _rings,
    "plaid": _plaid,
    "glow": _glow,
}
