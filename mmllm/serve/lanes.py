"""A queue of its own for each kind of work: the model's tasks, decoding, and the index.

`service` sends work down a lane and gets it back with its times. Each lane is a `Batcher`, so all
of them have bounds, deadlines, cancellation and a drain; the model's lanes share the turns at the
engine, decoding and index have threads of their own.
"""

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any, NamedTuple, TypeVar

from mmllm.serve import batcher, bundles, problems, tasks, tracing
from mmllm.serve import metrics as metrics_lib
from mmllm.serve import pool as pool_lib
from mmllm.serve import settings as settings_lib

Value = TypeVar("Value")

RUNS: dict[str, pool_lib.Function] = {
    "caption": tasks.captions,
    "ocr": tasks.strips,
    "vqa": tasks.answers,
    "embed_image": tasks.image_vectors,
    "embed_text": tasks.text_vectors,
    "stream": tasks.alone,
}

log = logging.getLogger(__name__)


class Ran(NamedTuple):
    """What came out of a lane of the model, and its times in seconds."""

    value: Any
    bundle: bundles.Bundle
    engine: str
    degraded: bool
    queue_s: float
    engine_s: float


class Lanes:
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
        turns = batcher.Turns(settings.engine_threads)
        self._model: dict[str, batcher.Batcher[Any, Any]] = {}
        for task in RUNS:
            how = settings.batch_of(task)
            alone = task == "stream"  # a stream has the thread for itself
            self._model[task] = batcher.Batcher(
                functools.partial(self._on_pool, task),
                max_batch=1 if alone else how.max_batch,
                max_wait_s=0.0 if alone else how.max_wait_ms / 1000,
                queue_size=how.queue_size,
                turns=turns,
                observe=functools.partial(self._observe, task),
                dropped=functools.partial(metrics.items_dropped, task),
            )
        self._decoding = _Threads("decode", settings.engine_threads, settings, metrics)
        # To find the lines of a picture made for it takes seconds: that shall delay pages alone.
        self._paging = _Threads("page", 1, settings, metrics)
        self._indexing = _Threads("index", 1, settings, metrics)

    async def run(
        self, task: str, item: Any, deadline: float, on: pool_lib.Generation | None = None
    ) -> Ran:
        """Sends an item to the model.

        Args:
          task: one of RUNS.
          item: as the task's function takes it.
          deadline: in the event loop's time.
          on: the model that the item was made for; None: the one that serves now.

        Raises:
          Problem: see `Batcher.submit` and `Pool.run`.
          Exception: what the task's function raised.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        with tracing.span("run", task=task), on or self._pool.serving() as model:
            value, ran = await self._model[task].submit((model, item), deadline)
        queue_s = max(0.0, loop.time() - started - ran.run_s)
        return Ran(value, ran.bundle, ran.engine, ran.degraded, queue_s, ran.run_s)

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
        threads = self._paging if task == "ocr" else self._decoding
        with tracing.span("decode", task=task):
            value = await threads.lane.submit(function, deadline)
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
            return await self._indexing.lane.submit(function, deadline)

    def stalled(self, times: float = 1.0) -> str | None:
        """Names a lane from which nothing was taken for longer than anything may take.

        Args:
          times: how much longer.
        """
        most_s = times * (self._settings.deadline_s + self._settings.engine_timeout_s)
        for name, lane in self._all().items():
            if lane.stalled_s() > most_s:
                return f"nothing was taken from the queue of {name} for {most_s:g} s"
        return None

    def tell(self) -> None:
        """Tells the metrics how many items wait."""
        for name, lane in self._all().items():
            self._metrics.queue_depth(name, lane.depth)

    async def close(self, drain_s: float) -> None:
        """Refuses new work, lets the accepted finish for `drain_s`, and ends the threads."""
        await asyncio.gather(*(lane.close(drain_s) for lane in self._all().values()))
        for threads in (self._decoding, self._paging, self._indexing):
            threads.executor.shutdown(wait=False, cancel_futures=True)

    def _all(self) -> dict[str, batcher.Batcher[Any, Any]]:
        return self._model | {
            "decode": self._decoding.lane,
            "page": self._paging.lane,
            "index": self._indexing.lane,
        }

    async def _on_pool(
        self, task: str, items: list[tuple[pool_lib.Generation, Any]]
    ) -> Sequence[Any]:
        """Runs a batch, each item on its own model: around a reload there are two."""
        places: dict[pool_lib.Generation, list[int]] = {}
        for place, (model, _) in enumerate(items):
            places.setdefault(model, []).append(place)
        found: dict[int, Any] = {}
        for model, group in places.items():
            try:
                ran = await self._pool.run(
                    task, RUNS[task], [items[place][1] for place in group], model
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


class _Threads:
    """A lane whose items are functions, run one by one in threads."""

    def __init__(
        self,
        name: str,
        count: int,
        settings: settings_lib.Settings,
        metrics: metrics_lib.Metrics,
    ) -> None:
        def observe(batch: batcher.Batch) -> None:
            metrics.queue_depth(name, self.lane.depth)
            for wait_s in batch.waits_s:
                metrics.queue_wait(name, wait_s)

        self.executor = futures.ThreadPoolExecutor(count, thread_name_prefix=name)
        self.lane: batcher.Batcher[Callable[[], Any], Any] = batcher.Batcher(
            self._run,
            max_batch=1,
            max_wait_s=0.0,
            queue_size=settings.queue_size,
            turns=batcher.Turns(count),
            observe=observe,
            dropped=functools.partial(metrics.items_dropped, name),
        )

    async def _run(self, functions: list[Callable[[], Any]]) -> Sequence[Any]:
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(self.executor, function) for function in functions]
