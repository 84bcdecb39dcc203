"""The engine that runs a bundle with JAX: the only module of the runtime that imports it.

Batches are padded to a few fixed sizes, so that each method is compiled at most once a size.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from mmllm import models
from mmllm.bundle.files import Bundle
from mmllm.runtime.engines.base import MAX_ROWS

# Few, for each costs a compilation of every method; 1 for a single picture, which should be quick.
BUCKETS = (1, 8, MAX_ROWS)
# Compilations quicker than this are cheaper to repeat than to look up.
MIN_CACHED_SECONDS = 0.1


def keep_compilations(folder: Path) -> None:
    """Lets JAX keep compiled programs in `folder`, so that the next process starts faster.

    A setting of the whole process: the command line makes it, the library leaves it to its caller.
    """
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_CACHED_SECONDS)
    # -1: of any size.
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def bucket(rows: int) -> int:
    """Smallest bucket that holds `rows`.

    Raises:
      ValueError: more rows than the largest bucket, or none.
    """
    for size in BUCKETS:
        if 0 < rows <= size:
            return size
    raise ValueError(f"rows must be 1 to {BUCKETS[-1]}, got {rows}; cut the batch into parts")


class JaxEngine:
    """Implements `runtime.engines.base.Engine`."""

    name = "jax"
    row_by_row = False

    def __init__(self, bundle: Bundle) -> None:
        self.config = bundle.config
        model = models.build(bundle.config, bundle.rules)
        self._params = jax.device_put(bundle.params)

        def method(name: str, **options: Any) -> Callable[..., Any]:
            def call(params: Any, *inputs: Any) -> Any:
                try:
                    return model.apply({"params": params}, *inputs, method=name)
                except flax.errors.FlaxError as error:
                    # Without Flax's link to its documentation.
                    reason = str(error).partition(" (http")[0]
                    raise ValueError(
                        f"model bundle {bundle.folder} does not fit its config: {reason}"
                    ) from error

            return functools.partial(jax.jit(call, **options), self._params)

        self._encode_image = method("encode_image")
        self._embed_image = method("embed_image")
        self._embed_text = method("embed_text")
        self._read_lines = method("read_lines")
        self._prefill = method("prefill")
        # The cache (behind params, ids and position) is updated in place, not copied every token.
        self._decode_step = method("decode_step", donate_argnums=(3,))
        self._take_rows = jax.jit(
            lambda cache, rows: jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0), cache)
        )

    def encode_image(self, pixels: Float[np.ndarray, "b y x 3"]) -> Float[np.ndarray, "b n d"]:
        """Pixels -> prefix tokens."""
        return _by_buckets(self._encode_image, np.asarray(pixels, np.float32))

    def embed_image(self, pixels: Float[np.ndarray, "b y x 3"]) -> Float[np.ndarray, "b e"]:
        """Pixels -> unit embeddings."""
        return _by_buckets(self._embed_image, np.asarray(pixels, np.float32))

    def embed_text(self, ids: Int[np.ndarray, "b t"]) -> Float[np.ndarray, "b e"]:
        """Ids -> unit embeddings."""
        return _by_buckets(self._embed_text, np.asarray(ids, np.int32))

    def read_lines(self, lines: Float[np.ndarray, "b y x"]) -> Float[np.ndarray, "b n v"]:
        """Grey lines -> CTC logits by column."""
        return _by_buckets(self._read_lines, np.asarray(lines, np.float32))

    def prefill(
        self, prefix: Float[np.ndarray, "b n d"], ids: Int[np.ndarray, "b t"]
    ) -> tuple[Float[np.ndarray, "b t v"], Any]:
        """Prompts -> logits at every position, and a cache."""
        rows = len(ids)
        size = bucket(rows)
        logits, cache = self._prefill(
            _pad(np.asarray(prefix, np.float32), size), _pad(np.asarray(ids, np.int32), size)
        )
        return np.asarray(logits)[:rows], cache

    def decode_step(
        self, ids: Int[np.ndarray, "b"], position: Int[np.ndarray, "b"], cache: Any
    ) -> tuple[Float[np.ndarray, "b v"], Any]:
        """One more token a row; consumes the cache."""
        rows, size = len(ids), len(jax.tree.leaves(cache)[0])
        logits, cache = self._decode_step(
            _pad(np.asarray(ids, np.int32), size), _pad(np.asarray(position, np.int32), size), cache
        )
        return np.asarray(logits)[:rows], cache

    def take_rows(self, cache: Any, rows: Int[np.ndarray, "b"]) -> Any:
        """A cache with rows chosen from another."""
        return self._take_rows(cache, _pad(np.asarray(rows, np.int32), bucket(len(rows))))


def _pad(array: np.ndarray, rows: int) -> np.ndarray:
    """Repeats the last row: every row stays a plausible input."""
    missing = rows - len(array)
    return (
        array if missing == 0 else np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
    )


def _by_buckets(call: Callable[[np.ndarray], jax.Array], batch: np.ndarray) -> np.ndarray:
    """Runs a batch of any size through a compiled method, at most MAX_ROWS at a time."""
    if len(batch) == 0:
        raise ValueError("batch must hold at least one row, got none")
    parts = []
    for start in range(0, len(batch), MAX_ROWS):
        part = batch[start : start + MAX_ROWS]
        parts.append(np.asarray(call(_pad(part, bucket(len(part)))))[: len(part)])
    return np.concatenate(parts) if len(parts) > 1 else parts[0]
