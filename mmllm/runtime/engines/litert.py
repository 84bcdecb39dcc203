"""The engine that runs a bundle's LiteRT file: numpy and ai-edge-litert, no JAX.

The file's signatures hold one row; batches are run row by row. Each row takes the shortest
signature that holds its own tokens, so that its numbers do not depend on its batch mates.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mmllm.common.config import ModelConfig

Row = dict[str, np.ndarray]


class LiteRtEngine:
    """Implements `runtime.engines.base.Engine`.

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
        # As the file has them: another version of this package may have made it.
        self._lengths = sorted(int(n.rpartition("_")[2]) for n in names if n.startswith("prefill_"))

    def _run(self, name: str, **inputs: np.ndarray) -> Row:
        # Making a runner looks its tensors up by name, which takes longer than a small call.
        if name not in self._runners:
            self._runners[name] = self._interpreter.get_signature_runner(name)
        return self._runners[name](**inputs)

    def _each(self, name: str, input_: str, output: str, batch: np.ndarray) -> np.ndarray:
        """Runs a signature of one input row by row."""
        rows = [
            self._run(name, **{input_: batch[row : row + 1].astype(np.float32)})[output]
            for row in range(len(batch))
        ]
        return _joined(rows)

    def _fitted(self, ids: Int[np.ndarray, "t"]) -> Int[np.ndarray, "1 u"]:
        """One row of tokens, its padding cut or filled to the shortest length of a signature."""
        own = int(np.max(np.flatnonzero(ids), initial=0)) + 1
        length = next((length for length in self._lengths if length >= own), None)
        if length is None:
            raise ValueError(f"ids must hold at most {self._lengths[-1]} tokens, got {own}")
        fitted = np.zeros((1, length), np.int32)
        fitted[0, :own] = ids[:own]
        return fitted

    def encode_image(self, pixels: Float[np.ndarray, "b y x 3"]) -> Float[np.ndarray, "b n d"]:
        """Pixels -> prefix tokens."""
        return self._each("encode_image", "pixels", "prefix", pixels)

    def embed_image(self, pixels: Float[np.ndarray, "b y x 3"]) -> Float[np.ndarray, "b e"]:
        """Pixels -> unit embeddings."""
        return self._each("embed_image", "pixels", "embedding", pixels)

    def embed_text(self, ids: Int[np.ndarray, "b t"]) -> Float[np.ndarray, "b e"]:
        """Ids -> unit embeddings."""
        rows = [
            self._run(f"embed_text_{row.shape[1]}", ids=row)["embedding"]
            for row in map(self._fitted, ids)
        ]
        return _joined(rows)

    def read_lines(self, lines: Float[np.ndarray, "b y x"]) -> Float[np.ndarray, "b n v"]:
        """Grey lines -> CTC logits by column."""
        return self._each("read_lines", "lines", "logits", lines)

    def prefill(
        self, prefix: Float[np.ndarray, "b n d"], ids: Int[np.ndarray, "b t"]
    ) -> tuple[Float[np.ndarray, "b t v"], list[Row]]:
        """Prompts -> logits at every position, and a cache."""
        # Zeros behind a row's own tokens: no one reads those.
        logits = np.zeros((*ids.shape, self.config.vocab_size), np.float32)
        cache = []
        for row, fitted in enumerate(map(self._fitted, ids)):
            one, length = slice(row, row + 1), fitted.shape[1]
            found = self._run(
                f"prefill_{length}", prefix=prefix[one].astype(np.float32), ids=fitted
            )
            count = min(length, ids.shape[1])
            logits[row, :count] = found.pop("logits")[0, :count]
            cache.append(found)
        return logits, cache

    def decode_step(
        self, ids: Int[np.ndarray, "b"], position: Int[np.ndarray, "b"], cache: list[Row]
    ) -> tuple[Float[np.ndarray, "b v"], list[Row]]:
        """One more token a row; consumes the cache."""
        logits, grown = [], []
        for row, held in enumerate(cache):
            one = slice(row, row + 1)
            found = self._run(
                "decode_step",
                ids=ids[one].astype(np.int32),
                position=position[one].astype(np.int32),
                **held,
            )
            logits.append(found.pop("logits"))
            grown.append(found)
        return np.concatenate(logits), grown

    def take_rows(self, cache: list[Row], rows: Int[np.ndarray, "b"]) -> list[Row]:
        """A cache with rows chosen from another."""
        # Shared, not copied: a step returns new arrays and writes into none.
        return [cache[row] for row in rows]


def _joined(rows: list[np.ndarray]) -> np.ndarray:
    if not rows:
        raise ValueError("batch must hold at least one row, got none")
    return np.concatenate(rows)
