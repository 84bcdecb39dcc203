"""The engine that runs a bundle's LiteRT file: numpy and ai-edge-litert, no JAX.

The file's signatures hold one row; batches are run row by row.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mmllm.common.config import ModelConfig

Row = dict[str, np.ndarray]


class LiteRtEngine:
    """Implements `runtime.engine.Engine`.

    Args:
      path: the bundle's file, verified.
      config: of the model.
      threads: CPU threads of one call.

    Raises:
      ModuleNotFoundError: ai-edge-litert is missing.
      ValueError: the file cannot be loaded.
    """

    name = "litert"
    row_by_row = True

    def __init__(self, path: Path, config: ModelConfig, threads: int = 2) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"engine 'litert' needs {error.name}: pip install mmllm brings it", name=error.name
            ) from error
        self.config = config
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
            names = self._interpreter.get_signature_list()
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{path} is no LiteRT model: {error}") from error
        self._runners: dict[str, Any] = {}
        self._lengths = sorted(int(n.rpartition("_")[2]) for n in names if n.startswith("prefill_"))

    def _run(self, name: str, **inputs: np.ndarray) -> Row:
        if name not in self._runners:
            self._runners[name] = self._interpreter.get_signature_runner(name)
        return self._runners[name](**inputs)

    def _each(self, name: str, output: str, **batch: np.ndarray) -> np.ndarray:
        """Runs a signature row by row."""
        count = len(next(iter(batch.values())))
        if count == 0:
            raise ValueError("batch must hold at least one row, got none")
        rows = [
            self._run(name, **{key: value[row : row + 1] for key, value in batch.items()})[output]
            for row in range(count)
        ]
        return np.concatenate(rows)

    def _padded(self, ids: Int[np.ndarray, "b t"]) -> tuple[int, Int[np.ndarray, "b u"]]:
        """Token rows, padded with 0 to the shortest length that a signature has."""
        have = ids.shape[1]
        length = next((length for length in self._lengths if length >= have), None)
        if length is None:
            raise ValueError(f"ids must hold at most {self._lengths[-1]} tokens, got {have}")
        return length, np.pad(ids.astype(np.int32), ((0, 0), (0, length - have)))

    def encode_image(self, pixels: Float[np.ndarray, "b y x 3"]) -> Float[np.ndarray, "b n d"]:
        """Pixels -> prefix tokens."""
        return self._each("encode_image", "prefix", pixels=pixels.astype(np.float32))

    def embed_image(self, pixels: Float[np.ndarray, "b y x 3"]) -> Float[np.ndarray, "b e"]:
        """Pixels -> unit embeddings."""
        return self._each("embed_image", "embedding", pixels=pixels.astype(np.float32))

    def embed_text(self, ids: Int[np.ndarray, "b t"]) -> Float[np.ndarray, "b e"]:
        """Ids -> unit embeddings."""
        length, padded = self._padded(ids)
        return self._each(f"embed_text_{length}", "embedding", ids=padded)

    def read_lines(self, lines: Float[np.ndarray, "b y x"]) -> Float[np.ndarray, "b n v"]:
        """Grey lines -> CTC logits by column."""
        return self._each("read_lines", "logits", lines=lines.astype(np.float32))

    def prefill(
        self, prefix: Float[np.ndarray, "b n d"], ids: Int[np.ndarray, "b t"]
    ) -> tuple[Float[np.ndarray, "b t v"], list[Row]]:
        """Prompts -> logits at every position, and a cache."""
        length, padded = self._padded(ids)
        logits, cache = [], []
        for row in range(len(ids)):
            one = slice(row, row + 1)
            got = self._run(
                f"prefill_{length}", prefix=prefix[one].astype(np.float32), ids=padded[one]
            )
            logits.append(got.pop("logits")[:, : ids.shape[1]])
            cache.append(got)
        return np.concatenate(logits), cache

    def decode_step(
        self, ids: Int[np.ndarray, "b"], position: Int[np.ndarray, "b"], cache: list[Row]
    ) -> tuple[Float[np.ndarray, "b v"], list[Row]]:
        """One more token a row; consumes the cache."""
        logits, grown = [], []
        for row, held in enumerate(cache):
            one = slice(row, row + 1)
            got = self._run(
                "decode_step",
                ids=ids[one].astype(np.int32),
                position=position[one].astype(np.int32),
                **held,
            )
            logits.append(got.pop("logits"))
            grown.append(got)
        return np.concatenate(logits), grown

    def take_rows(self, cache: list[Row], rows: Int[np.ndarray, "b"]) -> list[Row]:
        """A cache with rows chosen from another."""
        return [cache[row] for row in rows]
