"""Pictures -> backbone features of several views each: the slow part of preparing a run.

The backbone, pretrained and perhaps tuned, does not change any more: it runs here, once for each
view, and never in the training loop.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.data import transforms
from mmllm.models import efficientnet_lite0
from mmllm.models import mmllm as model_lib

# Of inference alone: none of them changes a value.
BATCH = 32  # pictures
THREADS = 2
AHEAD = 4  # batches drawn while the backbone is busy; more would only fill memory

Function = Callable[[np.ndarray], np.ndarray]


def feature_function(config: Config, backbone: Params | None) -> Function:
    """uint8 pictures (b, side, side, 3), at most BATCH -> float16 backbone features."""
    # In float, as `part_function` runs it.
    model, params = (
        model_lib.build(config.model),
        {} if backbone is None else {"backbone": backbone},
    )
    return _batched(
        lambda pixels: model.apply({"params": params}, pixels, method="backbone_features")
    )


def part_function(backbone: Params, *, level: str, entry: str | None = None) -> Function:
    """A part of the backbone: pictures, or features of `entry`, -> float16 features of `level`."""
    part = efficientnet_lite0.EfficientNetLite0(level=level, entry=entry)
    return _batched(lambda features: part.apply({"params": backbone}, features))


def _batched(function: Callable[[jax.Array], Any]) -> Function:
    """Jits a function of float32 arrays; short batches are padded, so that it compiles once."""

    @jax.jit
    def run(inputs: jax.Array) -> jax.Array:
        # Half the room on the disk; a step computes in float32 again.
        return function(inputs.astype(jnp.float32)).astype(jnp.float16)

    def apply(inputs: np.ndarray) -> np.ndarray:
        padded = np.pad(inputs, ((0, BATCH - len(inputs)), (0, 0), (0, 0), (0, 0)))
        return np.asarray(run(padded))[: len(inputs)]

    return apply


def view_batches(
    source: Any, view: int, key: Sequence[int], side: int, augmentation: str
) -> Iterator[tuple[int, np.ndarray]]:
    """Draws a view of every picture, in order.

    Args:
      source: examples of a corpus, by number.
      view: 0 for the plain one.
      key: seeds the generators, with the picture's place: the threads change nothing.
      side: pixels.
      augmentation: of the corpus, a name of `transforms.AUGMENTATIONS`.

    Yields:
      The first picture's place and (b, side, side, 3) uint8 pictures.
    """

    def draw(start: int) -> tuple[int, np.ndarray]:
        places = range(start, min(start + BATCH, len(source)))
        rows = [
            transforms.picture_view(
                source[place], view, np.random.default_rng([*key, place]), side, augmentation
            )
            for place in places
        ]
        return start, np.stack(rows)

    with ThreadPoolExecutor(THREADS) as pool:
        pending = []
        for start in range(0, len(source), BATCH):
            pending.append(pool.submit(draw, start))
            # The oldest first: rows stay in order, whichever thread is done first.
            if len(pending) > AHEAD:
                yield pending.pop(0).result()
        for future in pending:
            yield future.result()


def in_batches(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the place of the first row and up to BATCH rows, in order."""
    for start in range(0, len(rows), BATCH):
        yield start, np.asarray(rows[start : start + BATCH])


def channel_statistics(features: np.ndarray, pictures: int) -> dict[str, np.ndarray]:
    """Scale and bias that give the channels mean 0 and deviation 1 over the first `pictures`."""
    plain = np.asarray(features[:pictures], np.float32)
    plain = plain.reshape(-1, plain.shape[-1])
    # A channel that is 0 on all of them must not become infinite.
    scale = 1.0 / (plain.std(axis=0) + 1e-3)
    bias = -plain.mean(axis=0) * scale
    return {"scale": scale.astype(np.float32), "bias": bias.astype(np.float32)}
