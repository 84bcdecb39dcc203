"""What a runtime backend must do: the model's methods, on numpy arrays, for any number of rows.

`decode` and `model` use nothing else; `registry` lists the engines that implement it.
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from mmllm.common.config import ModelConfig

MAX_ROWS = 64
"""Most rows one decoding batch holds; callers cut larger batches."""


@runtime_checkable
class Engine(Protocol):
    """A loaded model. Pictures and lines are floats in 0..255.

    Attributes:
      name: what `from_pretrained` calls it.
      config: sizes of the model.
      row_by_row: a batch takes as long as its rows together, so finished rows are left out.
    """

    name: str
    config: ModelConfig
    row_by_row: bool

    def encode_image(self, pixels: Float[np.ndarray, "b y x 3"]) -> Float[np.ndarray, "b n d"]:
        """Pixels -> prefix tokens for the decoder."""
        ...

    def embed_image(self, pixels: Float[np.ndarray, "b y x 3"]) -> Float[np.ndarray, "b e"]:
        """Pixels -> unit embeddings."""
        ...

    def embed_text(self, ids: Int[np.ndarray, "b t"]) -> Float[np.ndarray, "b e"]:
        """`[<emb>] text <eos>`, padded with 0 -> unit embeddings."""
        ...

    def read_lines(self, lines: Float[np.ndarray, "b y x"]) -> Float[np.ndarray, "b n v"]:
        """Grey text lines -> CTC logits by column; class 0 is the blank."""
        ...

    def prefill(
        self, prefix: Float[np.ndarray, "b n d"], ids: Int[np.ndarray, "b t"]
    ) -> tuple[Float[np.ndarray, "b t v"], Any]:
        """Prompts of at most MAX_ROWS rows -> logits at every position, and a cache.

        Rows may be padded on the right with 0: later steps overwrite the padding, and the logits
        behind a row's last token mean nothing.
        """
        ...

    def decode_step(
        self, ids: Int[np.ndarray, "b"], position: Int[np.ndarray, "b"], cache: Any
    ) -> tuple[Float[np.ndarray, "b v"], Any]:
        """One more token a row, at its sequence position (prefix included). Consumes the cache."""
        ...

    def take_rows(self, cache: Any, rows: Int[np.ndarray, "b"]) -> Any:
        """A cache whose row i is the given cache's row rows[i]; rows may repeat."""
        ...
