"""What the emoji and stamps corpora share: their record, and SVG -> RGBA cut-out."""

import hashlib
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image

from mmllm.common import paths
from mmllm.data import packages

SIDE = 160
RENDERER = "rsvg-convert"
RENDER_TIMEOUT_SECONDS = 60
WORKERS = 2

Item = TypeVar("Item")
Result = TypeVar("Result")


def features() -> tfds.features.FeaturesDict:
    """Returns the features of one cut-out: RGBA picture, captions by language, provenance."""
    text = tfds.features.Text
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(SIDE, SIDE, 4), encoding_format="png"),
            "id": text(),
            "concept": text(),
            "family": text(),
            "source": text(),
            "author": text(),
            "licence": text(),
            "languages": tfds.features.Sequence(text()),
            "captions": tfds.features.Sequence(text()),
            "keywords": text(),
        }
    )


def render_svg(svg: str | bytes, side: int = SIDE) -> UInt8[np.ndarray, "y x 4"]:
    """Renders an SVG with rsvg-convert into a transparent square, centred, aspect kept.

    Renders stay in the cache folder, so an interrupted build goes on where it stopped.

    Raises:
      MissingClient: rsvg-convert is not installed.
      ValueError: the SVG cannot be drawn.
    """
    data = svg.encode() if isinstance(svg, str) else svg
    name = hashlib.sha256(data).hexdigest()
    # By content, so that a new version of a package renders only what changed; in folders by two
    # digits, as there are thousands.
    cached = paths.data_dir() / "renders" / str(side) / name[:2] / f"{name[2:]}.png"
    if not cached.is_file():
        drawn = _run_renderer(data, side)
        with paths.written_whole(cached) as file:
            file.write_bytes(drawn)
    with Image.open(cached) as picture:
        return centre(picture, side)


def try_render(svg: str | bytes) -> UInt8[np.ndarray, "y x 4"] | None:
    """Renders an SVG, or returns None where the renderer refuses it or next to nothing shows."""
    try:
        image = render_svg(svg)
    except ValueError:
        return None
    return None if is_blank(image) else image


def _run_renderer(data: bytes, side: int) -> bytes:
    program = packages.require(RENDERER)
    command = [program, "--keep-aspect-ratio", "--width", str(side), "--height", str(side)]
    done = subprocess.run(command, input=data, capture_output=True, timeout=RENDER_TIMEOUT_SECONDS)
    if done.returncode or not done.stdout:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no output"]
        raise ValueError(f"{RENDERER} cannot draw the SVG: {reason[0]}")
    return done.stdout


def centre(picture: Image.Image, side: int = SIDE) -> UInt8[np.ndarray, "y x 4"]:
    """Returns a picture scaled to fit a transparent square of `side` pixels, centred.

    Smaller pictures are enlarged. Scaling works on premultiplied colours, so no dark or coloured
    fringe appears where the picture becomes transparent.
    """
    rgba = picture.convert("RGBA")
    scale = side / max(rgba.size)
    size = (max(1, round(rgba.width * scale)), max(1, round(rgba.height * scale)))
    if size != rgba.size:
        rgba = rgba.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(rgba, ((side - size[0]) // 2, (side - size[1]) // 2))
    return np.array(square)


def is_blank(rgba: UInt8[np.ndarray, "y x 4"]) -> bool:
    """Whether next to nothing is drawn: under 0.2 % of the pixels are visible."""
    return float((rgba[..., 3] > 16).mean()) < 0.002


def mapped(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yields work(item) in order, WORKERS at a time, holding only a few results in memory."""
    waiting = iter(items)
    # Threads will do: the renderer runs in a process of its own.
    with ThreadPoolExecutor(WORKERS) as pool:
        running = [pool.submit(work, item) for item in islice(waiting, 4 * WORKERS)]
        while running:
            yield running.pop(0).result()
            running += [pool.submit(work, item) for item in islice(waiting, 1)]


def record(
    *,
    image: UInt8[np.ndarray, "y x 4"],
    key: str,
    concept: str,
    family: str,
    package: packages.Package,
    captions: dict[str, str],
    keywords: Iterable[str] = (),
) -> dict[str, Any]:
    """Returns one example for `features`; `captions` maps language to text, "en" first."""
    return {
        "image": image,
        "id": key,
        "concept": concept,
        "family": family,
        "source": f"{package.name} {package.version}",
        "author": package.title,
        "licence": package.licence,
        "languages": list(captions),
        "captions": list(captions.values()),
        "keywords": "|".join(keywords),
    }
