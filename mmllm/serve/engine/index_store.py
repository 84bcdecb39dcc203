"""The index of whichever model serves, opened when it is first needed.

`service` calls it in the one thread that the index has. A reload makes other vectors: their index
is opened in the place of the old model's, whose file stays for when that model comes back.
"""

import threading

from mmllm.serve import settings as settings_lib
from mmllm.serve.engine import index as index_lib


class IndexStore:
    """Holds one open index.

    Args:
      settings: `index_path` and `index_items`.
    """

    def __init__(self, settings: settings_lib.Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._index: index_lib.Index | None = None

    def __len__(self) -> int:
        """Entries of the open index; 0 if none is."""
        index = self._index
        return 0 if index is None else len(index)

    def open(self, fingerprint: str, width: int) -> index_lib.Index:
        """The index of a model; that of another one is closed.

        Args:
          fingerprint: of the model.
          width: of its vectors.

        Raises:
          Problem: "index-unavailable" if it cannot be opened; the next call tries again.
        """
        with self._lock:
            if self._index is None or self._index.fingerprint != fingerprint:
                self._close()
                self._index = index_lib.Index(
                    self._settings.index_path, fingerprint, width, self._settings.index_items
                )
            return self._index

    def close(self) -> None:
        """Closes the open index."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._index is not None:
            self._index.close()
        self._index = None
