"""The service itself: what each task does with a request, from bytes to an answer.

Routes call it with what they parsed; it cleans and checks, looks into the cache, decodes in a
thread, and submits to the task's batcher, which runs on the pool. Every method raises `Problem`
and nothing else for what a caller did or what the service cannot do now, keeps to its deadline,
and stops its work when it is cancelled.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from mmllm.serve import answers
from mmllm.serve import metrics as metrics_lib
from mmllm.serve import settings as settings_lib


class Service:
    """Everything between the routes and the engines of one process.

    Args:
      settings: of the process.
      metrics: what it counts and times.

    `image` is always a picture file's bytes as uploaded. `deadline_s` is in seconds from now and
    at most the settings' own, which is the default.
    """

    def __init__(self, settings: settings_lib.Settings, metrics: metrics_lib.Metrics) -> None:
        self.settings, self.metrics = settings, metrics

    async def start(self) -> None:
        """Loads, verifies and warms the model, and opens cache and index.

        Raises:
          FileNotFoundError: no such bundle.
          ModuleNotFoundError: the engine is not installed.
          ValueError: a damaged bundle or one without a file for the engine.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Refuses new work, lets accepted work finish within `drain_s`, and frees everything."""
        raise NotImplementedError

    async def caption(
        self, image: bytes, *, language: str = "en", beam: int = 1, deadline_s: float | None = None
    ) -> answers.Text:
        """Says what a picture shows."""
        raise NotImplementedError

    async def ocr(self, image: bytes, *, deadline_s: float | None = None) -> answers.Reading:
        """Reads the lines of text in a picture."""
        raise NotImplementedError

    async def vqa(
        self, image: bytes, question: str, *, beam: int = 1, deadline_s: float | None = None
    ) -> answers.Text:
        """Answers a question about a picture."""
        raise NotImplementedError

    async def embed_image(
        self, image: bytes, *, deadline_s: float | None = None
    ) -> answers.Vectors:
        """The unit vector of a picture."""
        raise NotImplementedError

    async def embed_text(
        self, texts: Sequence[str], *, deadline_s: float | None = None
    ) -> answers.Vectors:
        """The unit vectors of texts, in their order."""
        raise NotImplementedError

    async def search(
        self,
        *,
        text: str | None = None,
        image: bytes | None = None,
        k: int = 10,
        deadline_s: float | None = None,
    ) -> answers.Hits:
        """Finds the entries of the index that are closest to a text or a picture."""
        raise NotImplementedError

    async def index_add(
        self,
        id: str,
        image: bytes,
        metadata: Mapping[str, Any],
        *,
        deadline_s: float | None = None,
    ) -> answers.Kept:
        """Puts a picture into the index, in the place of an older one of the same id."""
        raise NotImplementedError

    async def index_remove(self, id: str) -> None:
        """Takes an entry out of the index; Problem "not-found" if it has none of that id."""
        raise NotImplementedError

    def stream(
        self,
        image: bytes,
        *,
        question: str | None = None,
        language: str = "en",
        deadline_s: float | None = None,
    ) -> AsyncIterator[str]:
        """Yields an answer, or without a question a caption, piece by piece.

        What can go wrong shows before the first piece, as a rule: await that before the response
        begins. Closing the iterator stops the work.
        """
        raise NotImplementedError

    def info(self) -> answers.Info:
        """What serves now."""
        raise NotImplementedError

    async def reload(self, model: str) -> answers.Info:
        """Puts another bundle in the place of the one that serves, without a failed request.

        Raises:
          Problem: "reload-running" if another is on its way, "model-refused" if the bundle is
            missing, damaged or does not run; the old one goes on serving.
        """
        raise NotImplementedError
