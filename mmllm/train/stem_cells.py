"""Pictures -> stem cells of several views each: the slow part of `train.cache`.

The pretrained stem is frozen, so it runs here, once for each view, and never in the training loop.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmllm.common.config import Config
from mmllm.data import images, pretrained, tables, transforms
from mmllm.models import efficientnet_lite0
from mmllm.models import mmllm as model_lib

BATCH = 32
THREADS = 2
AHEAD = 4  # batches drawn while the stem is busy; more would only fill memory


def stem_function(config: Config) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 pictures (b, side, side, 3), at most BATCH -> float16 stem cells."""
    model = model_lib.build(config.model)
    params: dict[str, Any] = {}
    if config.model.stem == "efficientnet_lite0":
        weights = pretrained.efficientnet_lite0_weights()
        params = {"stem": efficientnet_lite0.convert_weights(weights, config.model.tap)}

    @jax.jit
    def run(pixels: jax.Array) -> jax.Array:
        floats = pixels.astype(jnp.float32)
        cells: Any = model.apply({"params": params}, floats, method="stem_cells")
        return cells.astype(jnp.float16)

    def apply(pixels: np.ndarray) -> np.ndarray:
        room = BATCH - len(pixels)  # One shape, one compiled program.
        padded = np.pad(pixels, ((0, room), (0, 0), (0, 0), (0, 0)))
        return np.asarray(run(padded))[: len(pixels)]

    return apply


def picture_view(element: Any, view: int, rng: np.random.Generator, side: int) -> np.ndarray:
    """One view of a corpus picture, (side, side, 3) uint8: plain for 0, augmented otherwise."""
    image = element["image"]
    if image.shape[-1] == 3:
        plain = images.to_square(image, side)
        return plain if view == 0 else transforms.jitter_colour(plain, rng)
    if view == 0:
        return transforms.plain_cutout(image, side)
    caption = tables.captions_of(element)[0][1]
    return transforms.augment_cutout(
        image,
        rng,
        side,
        flip=transforms.may_flip(caption),
        recolour=transforms.may_recolour(caption),
    )


def view_batches(
    source: Sequence[Any], view: int, key: Sequence[int], side: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Draws a view of every picture, in order.

    Args:
      source: examples of a corpus.
      view: 0 for the plain one.
      key: seeds the generators, with the picture's place: the threads change nothing.
      side: pixels.

    Yields:
      The first picture's place and (b, side, side, 3) uint8 pictures.
    """

    def draw(start: int) -> tuple[int, np.ndarray]:
        places = range(start, min(start + BATCH, len(source)))
        rows = [
            picture_view(source[place], view, np.random.default_rng([*key, place]), side)
            for place in places
        ]
        return start, np.stack(rows)

    with ThreadPoolExecutor(THREADS) as pool:
        pending = []
        for start in range(0, len(source), BATCH):
            pending.append(pool.submit(draw, start))
            if len(pending) > AHEAD:
                yield pending.pop(0).result()
        for future in pending:
            yield future.result()
