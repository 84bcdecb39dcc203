"""The service itself: what each task does with a request, from bytes to an answer.

Routes call it with what they parsed; it cleans and checks, looks into the cache, decodes in a
thread, and submits to the task's batcher, which runs on the pool. Every method raises `Problem`
and nothing else for what a caller did or what the service cannot do now, keeps to its deadline,
and stops its work when it is cancelled.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmllm.runtime import model as model_lib
from mmllm.serve import metrics as metrics_lib
from mmllm.serve import problems
from mmllm.serve import settings as settings_lib
from mmllm.serve.engine import answers, bundles, checks, index_store, queues, runner, tasks
from mmllm.serve.engine import cache as cache_lib
from mmllm.serve.engine import health as health_lib
from mmllm.serve.engine import index as index_lib
from mmllm.serve.engine import pool as pool_lib
from mmllm.serve.guard import pictures

CROPS_PER_RUN = 16  # of a page's lines in one batch: a page full of text delays nobody long
MAX_HITS = 1000
FATAL_STALL = 3.0  # times the longest that anything may take: such a stall does not pass


class Service:
    """Everything between the routes and the engines of one process.

    Args:
      settings: of the process.
      metrics: what it counts and times.
      make: gives what makes the models of an engine.

    Attributes:
      health: what probes are told; the server obeys it.

    `image` is always a picture file's bytes as uploaded. `deadline_s` is in seconds from now and
    at most the settings' own, which is the default.
    """

    def __init__(
        self,
        settings: settings_lib.Settings,
        metrics: metrics_lib.Metrics,
        make: pool_lib.Make = bundles.Bundle.maker,
    ) -> None:
        self.settings, self.metrics = settings, metrics
        self.health = health_lib.Health(settings, metrics)
        self._pool = pool_lib.Pool(settings, metrics, make)
        self._cache = cache_lib.ResultCache(settings, metrics)
        self._runner = runner.TaskRunner(self._cache, metrics, settings.deadline_s)
        self._queues = queues.TaskQueues(settings, metrics, self._pool)
        self._limits = pictures.limits_of(settings)
        self._index_store = index_store.IndexStore(settings)
        self.health.watch(lambda: self._pool.fatal, fatal=True)
        self.health.watch(lambda: self._pool.blocked)
        self.health.watch(self._queues.stalled)
        self.health.watch(lambda: self._queues.stalled(FATAL_STALL), fatal=True)
        self.health.each_tick(self._queues.report_depths)

    async def start(self) -> None:
        """Loads, verifies and warms the model, and opens the index.

        Raises:
          FileNotFoundError: no such bundle.
          ModuleNotFoundError: the engine is not installed.
          ValueError: a damaged bundle or one without a file for the engine.
        """
        self.health.start()
        await self._pool.start()
        await self._open_index()
        self.health.started()

    async def close(self) -> None:
        """Refuses new work, lets accepted work finish within `drain_s`, and frees everything."""
        self.health.drain()
        await self._queues.close(self.settings.drain_s)
        await self._cache.close()
        await self._pool.close()
        self._index_store.close()
        await self.health.close()

    def info(self) -> answers.Info:
        """What serves now."""
        bundle = self._pool.bundle
        return answers.Info(
            model=bundle.name,
            fingerprint=bundle.fingerprint,
            engine=bundle.engines[0],
            degraded=self._pool.degraded,
            languages=bundle.languages,
            embedding_dimensions=bundle.config.embed_dim,
            index_items=len(self._index_store),
        )

    async def reload(self, model: str) -> answers.Info:
        """Puts another bundle in the place of the one that serves, without a failed request.

        Raises:
          Problem: "reload-running" if another is on its way, "model-refused" if the bundle is
            missing, damaged or does not run; the old one goes on serving.
        """
        await self._pool.reload(model)
        await self._open_index()
        return self.info()

    async def caption(
        self, image: bytes, *, language: str = "en", beam: int = 1, deadline_s: float | None = None
    ) -> answers.Text:
        """Says what a picture shows."""
        with self._pool.serving() as model:
            checks.language(model.bundle, language)
            checks.beam(beam)

            async def work(deadline: float) -> runner.Outcome:
                pixels, decode_s = await self._square("caption", image, model, deadline)
                item = tasks.CaptionItem(pixels, language, beam)
                ran = await self._queues.run("caption", item, deadline, model)
                return runner.Outcome([ran.value.text, ran.value.score], ran, decode_s)

            options = {"language": language, "beam": beam}
            (text, score), made = await self._run(
                "caption", model, [image], options, work, deadline_s
            )
            return answers.Text(text, score, made)

    async def vqa(
        self, image: bytes, question: str, *, beam: int = 1, deadline_s: float | None = None
    ) -> answers.Text:
        """Answers a question about a picture."""
        with self._pool.serving() as model:
            cleaned = checks.question(model.bundle, question)
            checks.beam(beam)

            async def work(deadline: float) -> runner.Outcome:
                pixels, decode_s = await self._square("vqa", image, model, deadline)
                ran = await self._queues.run(
                    "vqa", tasks.QuestionItem(pixels, cleaned, beam), deadline, model
                )
                return runner.Outcome([ran.value.text, ran.value.score], ran, decode_s)

            options = {"question": cleaned, "beam": beam}
            (text, score), made = await self._run("vqa", model, [image], options, work, deadline_s)
            return answers.Text(text, score, made)

    async def ocr(self, image: bytes, *, deadline_s: float | None = None) -> answers.Reading:
        """Reads the lines of text in a picture."""
        with self._pool.serving() as model:

            async def work(deadline: float) -> runner.Outcome:
                page, decode_s = await self._queues.decode(
                    "ocr", lambda: tasks.page(image, self._limits, model.bundle.config), deadline
                )
                runs = [
                    await self._queues.run(
                        "ocr", page.crops[start : start + CROPS_PER_RUN], deadline, model
                    )
                    for start in range(0, max(1, len(page.crops)), CROPS_PER_RUN)
                ]
                read = [scored for ran in runs for scored in ran.value]
                regions = model_lib.regions_of(page.lines, read)
                whole = runs[0]._replace(
                    degraded=any(ran.degraded for ran in runs),
                    queue_s=sum(ran.queue_s for ran in runs),
                    engine_s=sum(ran.engine_s for ran in runs),
                )
                lines = [[region.text, list(region.box), region.score] for region in regions]
                return runner.Outcome([page.width, page.height, lines], whole, decode_s)

            (width, height, lines), made = await self._run(
                "ocr", model, [image], {}, work, deadline_s
            )
            found = tuple(answers.Line(text, tuple(box), score) for text, box, score in lines)
            return answers.Reading(found, width, height, made)

    async def embed_image(
        self, image: bytes, *, deadline_s: float | None = None
    ) -> answers.Vectors:
        """The unit vector of a picture."""
        with self._pool.serving() as model:

            async def work(deadline: float) -> runner.Outcome:
                pixels, decode_s = await self._square("embed_image", image, model, deadline)
                ran = await self._queues.run("embed_image", pixels, deadline, model)
                return runner.Outcome(ran.value.tolist(), ran, decode_s)

            rows, made = await self._run("embed_image", model, [image], {}, work, deadline_s)
            return answers.Vectors(tuple(map(tuple, rows)), made)

    async def embed_text(
        self, texts: Sequence[str], *, deadline_s: float | None = None
    ) -> answers.Vectors:
        """The unit vectors of texts, in their order."""
        with self._pool.serving() as model:
            cleaned = checks.texts(model.bundle, "texts", texts, self.settings.max_texts)

            async def work(deadline: float) -> runner.Outcome:
                ran = await self._queues.run("embed_text", cleaned, deadline, model)
                return runner.Outcome(ran.value.tolist(), ran)

            inputs = [text.encode() for text in cleaned]
            rows, made = await self._run("embed_text", model, inputs, {}, work, deadline_s)
            return answers.Vectors(tuple(map(tuple, rows)), made)

    async def search(
        self,
        *,
        text: str | None = None,
        image: bytes | None = None,
        k: int = 10,
        deadline_s: float | None = None,
    ) -> answers.Hits:
        """Finds the entries of the index that are closest to a text or a picture."""
        checks.number("k", k, MAX_HITS)
        async with self._runner.deadline("search", deadline_s) as deadline:
            if image is not None:
                vectors = await self.embed_image(image, deadline_s=deadline_s)
            else:
                (cleaned,) = checks.texts(self._pool.bundle, "text", [text or ""], 1)
                vectors = await self.embed_text([cleaned], deadline_s=deadline_s)
            query = np.array(vectors.vectors[0], np.float32)
            found = await self._queues.index(
                lambda: self._index_of(vectors).search(query, k), deadline
            )
        return answers.Hits(tuple(answers.Hit(*hit) for hit in found), vectors.made)

    async def index_add(
        self,
        id: str,
        image: bytes,
        metadata: Mapping[str, Any],
        *,
        deadline_s: float | None = None,
    ) -> answers.Indexed:
        """Puts a picture into the index, in the place of an older one of the same id."""
        checks.metadata(metadata)
        async with self._runner.deadline("index", deadline_s) as deadline:
            vectors = await self.embed_image(image, deadline_s=deadline_s)
            vector = np.array(vectors.vectors[0], np.float32)
            await self._queues.index(
                lambda: self._index_of(vectors).add(id, vector, metadata), deadline
            )
        return answers.Indexed(id, vectors.made)

    async def index_remove(self, id: str) -> None:
        """Takes an entry out of the index; Problem "entry-not-found" if it has none of that id."""
        async with self._runner.deadline("index", None) as deadline:
            if not await self._queues.index(lambda: self._index_now().remove(id), deadline):
                raise problems.Problem("entry-not-found")

    async def stream(
        self,
        image: bytes,
        *,
        question: str | None = None,
        language: str = "en",
        deadline_s: float | None = None,
    ) -> AsyncIterator[str]:
        """Yields an answer, or without a question a caption, piece by piece.

        What can go wrong shows before the first piece, as a rule: await that before the response
        begins. Closing the iterator stops the work. The pieces wait for a slow reader, the engine
        does not.
        """
        with self._pool.serving() as model:
            checked = None if question is None else checks.question(model.bundle, question)
            checks.language(model.bundle, language)
            async with self._runner.deadline("stream", deadline_s) as deadline:
                pixels, _ = await self._square("stream", image, model, deadline)

            def generate(engine: bundles.Model) -> Iterator[str]:
                if checked is None:
                    return engine.stream_caption(pixels, language)
                return engine.stream_answer(pixels, checked)

            made = self._queues.stream(
                generate,
                deadline,
                lambda count: self.metrics.tokens("stream", count),
                model,
            )
            with runner.masked("stream"):
                piece = await anext(made, None)
        # The making holds the model by now; a slow reader does not.
        with runner.masked("stream"):
            async with contextlib.aclosing(made):
                while piece is not None:
                    yield piece
                    piece = await anext(made, None)

    async def _run(
        self,
        task: str,
        model: pool_lib.ModelVersion,
        inputs: Sequence[bytes],
        options: Mapping[str, Any],
        work: Callable[[float], Awaitable[runner.Outcome]],
        deadline_s: float | None,
    ) -> tuple[Any, answers.Provenance]:
        async def held(deadline: float) -> runner.Outcome:
            with model:  # for those who joined, when the first to ask has left
                return await work(deadline)

        return await self._runner.run(task, model.bundle, inputs, options, held, deadline_s)

    async def _square(
        self, task: str, image: bytes, model: pool_lib.ModelVersion, deadline: float
    ) -> tuple[np.ndarray, float]:
        side = model.bundle.config.image_side
        return await self._queues.decode(
            task, lambda: tasks.square(image, self._limits, side), deadline
        )

    async def _open_index(self) -> None:
        deadline = asyncio.get_running_loop().time() + self.settings.deadline_s
        with contextlib.suppress(problems.Problem):  # is in the log, and each call tries again
            await self._queues.index(self._index_now, deadline)

    def _index_of(self, vectors: answers.Vectors) -> index_lib.Index:
        return self._index_store.open(vectors.made.fingerprint, len(vectors.vectors[0]))

    def _index_now(self) -> index_lib.Index:
        bundle = self._pool.bundle
        return self._index_store.open(bundle.fingerprint, bundle.config.embed_dim)
