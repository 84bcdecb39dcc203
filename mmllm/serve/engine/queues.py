"""A queue of its own for each kind of work: the model's tasks, decoding, and the index.

`service` sends work down a queue and gets it back with its times. Each queue is a `Batcher`, so all
of them have bounds, deadlines, cancellation and a drain; the model's queues share the engine's
threads, decoding and index have threads of their own.
"""

import asyncio
import functools
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent import futures
from typing import Any, NamedTuple, TypeVar

from mmllm.serve import metrics as metrics_lib
from mmllm.serve import problems, tracing
from mmllm.serve import settings as settings_lib
from mmllm.serve.engine import batcher, bundles, tasks
from mmllm.serve.engine import pool as pool_lib

Value = TypeVar("Value")
Generate = Callable[[bundles.Model], Iterator[str]]

FUNCTIONS: dict[str, pool_lib.Function] = {
    "caption": tasks.captions,
    "ocr": tasks.crops,
    "vqa": tasks.answers,
    "embed_image": tasks.image_vectors,
    "embed_text": tasks.text_vectors,
    "stream": tasks.alone,
}

log = logging.getLogger(__name__)


class TaskResult(NamedTuple):
    """What came out of a queue of the model, and its times in seconds."""

    value: Any
    bundle: bundles.Bundle
    engine: str
    degraded: bool
    queue_s: float
    engine_s: float


class TaskQueues:
    """The queues of one process.

    Args:
      settings: sizes and waits, by task.
      metrics: told of depth, waits and sizes.
      pool: runs the model's tasks.
    """

    def __init__(
        self,
        settings: settings_lib.Settings,
        metrics: metrics_lib.Metrics,
        pool: pool_lib.Pool,
    ) -> None:
        self._settings, self._metrics, self._pool = settings, metrics, pool
        semaphore = batcher.WorkerSemaphore(settings.engine_threads)
        self._model: dict[str, batcher.Batcher[Any, Any]] = {}
        for task in FUNCTIONS:
            how = settings.batch_of(task)
            alone = task == "stream"  # it has the thread for itself for as long as it takes
            self._model[task] = batcher.Batcher(
                functools.partial(self._on_pool, task),
                max_batch=1 if alone else how.max_batch,
                max_wait_s=0.0 if alone else how.max_wait_ms / 1000,
                queue_size=how.queue_size,
                semaphore=semaphore,
                observe=functools.partial(self._observe, task),
                dropped=functools.partial(metrics.items_dropped, task),
            )
        self._decoding = _ThreadQueue("decode", settings.engine_threads, settings, metrics)
        # The lines of a hostile picture can take seconds to find: that shall delay pages alone.
        self._pages = _ThreadQueue("page", 1, settings, metrics)
        # One thread: SQLite has one writer at a time anyway.
        self._indexing = _ThreadQueue("index", 1, settings, metrics)

    async def run(
        self, task: str, item: Any, deadline: float, version: pool_lib.ModelVersion | None = None
    ) -> TaskResult:
        """Sends an item to the model.

        Args:
          task: one of FUNCTIONS.
          item: as the task's function takes it.
          deadline: in the event loop's time.
          version: the model that the item was made for; None: the one that serves now.

        Raises:
          Problem: see `Batcher.submit` and `Pool.run`.
          Exception: what the task's function raised.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        # Held until the answer: a reload meanwhile must not free the model.
        with tracing.span("run", task=task), version or self._pool.serving() as model:
            value, ran = await self._model[task].submit((model, item), deadline)
        # What is left of the whole time once the run is taken off: clocks differ by a little.
        queue_s = max(0.0, loop.time() - started - ran.run_s)
        return TaskResult(value, ran.bundle, ran.engine, ran.degraded, queue_s, ran.run_s)

    async def stream(
        self,
        generate: Generate,
        deadline: float,
        count: Callable[[int], None],
        version: pool_lib.ModelVersion | None = None,
    ) -> AsyncGenerator[str, None]:
        """Yields what `generate` does in a thread with a model; closing the iterator stops it.

        Args:
          generate: gives the pieces of an answer with a model.
          deadline: in the event loop's time, for the making; the reader takes its own time.
          count: told how many pieces there were.
          version: see `run`.

        Raises:
          Problem: see `run`; "model-unavailable" if the engine failed on the way.
          Exception: what `generate` raised.
        """
        loop = asyncio.get_running_loop()
        # Without a bound of its own, so that a slow reader holds up no engine: an answer has one.
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        stop, begun = threading.Event(), threading.Event()

        def send(model: bundles.Model) -> int:
            sent = 0
            if begun.is_set():  # on the fallback, when the reader may have some of the first engine
                raise problems.Problem("model-unavailable", retry_after_s=1.0)
            for piece in generate(model):
                if stop.is_set():
                    break
                begun.set()
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
                sent += 1
            return sent

        work = asyncio.create_task(self.run("stream", send, deadline, version), name="stream")
        work.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            count((await work).value)
        finally:
            stop.set()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def decode(
        self, task: str, function: Callable[[], Value], deadline: float
    ) -> tuple[Value, float]:
        """Runs a function in a decoding thread and times it, the wait for a thread included.

        Raises:
          Problem: see `Batcher.submit`.
          Exception: what the function raised.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        threads = self._pages if task == "ocr" else self._decoding
        with tracing.span("decode", task=task):
            value = await threads.queue.submit(function, deadline)
        seconds = loop.time() - started
        self._metrics.stage(task, "decode", seconds)
        return value, seconds

    async def index(self, function: Callable[[], Value], deadline: float) -> Value:
        """Runs a function in the one thread that the index has.

        Raises:
          Problem: see `Batcher.submit`.
          Exception: what the function raised.
        """
        with tracing.span("index"):
            return await self._indexing.queue.submit(function, deadline)

    def stalled(self, times: float = 1.0) -> str | None:
        """Names a queue from which nothing was taken for longer than anything may take.

        Args:
          times: how much longer.
        """
        max_s = times * (self._settings.deadline_s + self._settings.engine_timeout_s)
        for name, queue in self._all().items():
            if queue.stalled_s() > max_s:
                return f"nothing was taken from the queue of {name} for {max_s:g} s"
        return None

    def report_depths(self) -> None:
        """Tells the metrics how many items wait."""
        for name, queue in self._all().items():
            self._metrics.queue_depth(name, queue.depth)

    async def close(self, drain_s: float) -> None:
        """Refuses new work, lets the accepted finish for `drain_s`, and ends the threads."""
        await asyncio.gather(*(queue.close(drain_s) for queue in self._all().values()))
        for threads in (self._decoding, self._pages, self._indexing):
            threads.executor.shutdown(wait=False, cancel_futures=True)

    def _all(self) -> dict[str, batcher.Batcher[Any, Any]]:
        return self._model | {
            "decode": self._decoding.queue,
            "page": self._pages.queue,
            "index": self._indexing.queue,
        }

    async def _on_pool(
        self, task: str, items: list[tuple[pool_lib.ModelVersion, Any]]
    ) -> Sequence[Any]:
        """Runs a batch, each item on its own model: around a reload there are two."""
        places: dict[pool_lib.ModelVersion, list[int]] = {}
        for place, (model, _) in enumerate(items):
            places.setdefault(model, []).append(place)
        found: dict[int, Any] = {}
        for model, group in places.items():
            try:
                ran = await self._pool.run(
                    task, FUNCTIONS[task], [items[place][1] for place in group], model
                )
            except problems.Problem as problem:
                if len(places) == 1:
                    raise
                found.update(dict.fromkeys(group, problem))  # the other model may be well
                continue
            how = ran._replace(values=[])
            for place, value in zip(group, ran.values, strict=True):
                found[place] = value if isinstance(value, Exception) else (value, how)
        return [found[place] for place in range(len(items))]

    def _observe(self, task: str, batch: batcher.Batch) -> None:
        self._metrics.batch_size(task, batch.size)
        self._metrics.queue_depth(task, self._model[task].depth)
        self._metrics.stage(task, "engine", batch.run_s)
        for wait_s in batch.waits_s:
            self._metrics.queue_wait(task, wait_s)


class _ThreadQueue:
    """A queue whose items are functions, run one by one in threads."""

    def __init__(
        self,
        name: str,
        count: int,
        settings: settings_lib.Settings,
        metrics: metrics_lib.Metrics,
    ) -> None:
        def observe(batch: batcher.Batch) -> None:
            metrics.queue_depth(name, self.queue.depth)
            for wait_s in batch.waits_s:
                metrics.queue_wait(name, wait_s)

        self.executor = futures.ThreadPoolExecutor(count, thread_name_prefix=name)
        self.queue: batcher.Batcher[Callable[[], Any], Any] = batcher.Batcher(
            self._run,
            max_batch=1,
            max_wait_s=0.0,
            queue_size=settings.queue_size,
            semaphore=batcher.WorkerSemaphore(count),
            observe=observe,
            dropped=functools.partial(metrics.items_dropped, name),
        )

    async def _run(self, functions: list[Callable[[], Any]]) -> Sequence[Any]:
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(self.executor, function) for function in functions]
