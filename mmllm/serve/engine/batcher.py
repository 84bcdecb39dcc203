"""Gathers single requests into batches: a bounded queue a task, fair use of the workers.

Stands between the service, which submits one item a request, and the pool, which runs a list of
them. The wait for a batch and the batch itself both count against an item's deadline, and an item
whose caller left is dropped before it costs anything.
"""

import asyncio
import collections
import dataclasses
import functools
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from mmllm.serve import problems

Item = TypeVar("Item")
Answer = TypeVar("Answer")

SMOOTHING = 0.2  # weight of the newest batch in the measured throughput
MAX_RETRY_S = 60.0

log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """What one batch took, for the metrics.

    Attributes:
      size: items in it.
      waits_s: seconds each item waited for it.
      run_s: seconds it ran.
    """

    size: int
    waits_s: tuple[float, ...]
    run_s: float


class WorkerSemaphore(asyncio.Semaphore):
    """A semaphore over the workers, which knows how many there are.

    All batchers of a process share one. asyncio wakes its waiters first come, first served, so a
    task with a long queue lines up again for each of its batches and cannot starve another.

    Args:
      count: workers, at least 1.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.count = count


@dataclasses.dataclass(eq=False)
class _Entry(Generic[Item]):
    item: Item
    deadline: float
    arrived: float
    future: "asyncio.Future[Any]"


class Batcher(Generic[Item, Answer]):
    """A bounded queue whose items are run together.

    Args:
      run: runs a batch; gives one answer an item, an Exception in the place of an answer being
        that item's alone. If it raises, each item is run once more by itself, unless it raised a
        Problem: then the engine is at fault and not an item.
      max_batch: most items in one batch.
      max_wait_s: how long the oldest item waits for company.
      queue_size: items that may wait; further ones are refused.
      semaphore: held while a batch runs; shared with other batchers.
      observe: told of every batch.
      dropped: called for each item that left the queue before it ran.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Awaitable[Sequence[Answer | Exception]]],
        *,
        max_batch: int,
        max_wait_s: float,
        queue_size: int,
        semaphore: WorkerSemaphore,
        observe: Callable[[Batch], None] = lambda batch: None,
        dropped: Callable[[], None] = lambda: None,
    ) -> None:
        self._run, self._observe, self._dropped, self._semaphore = run, observe, dropped, semaphore
        self.max_batch, self.max_wait_s, self.queue_size = max_batch, max_wait_s, queue_size
        self._queue: collections.deque[_Entry[Item]] = collections.deque()
        self._changed = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._loop_task: asyncio.Task[None] | None = None
        self._closed = False
        self._items_per_s: float | None = None
        self._waits_since: float | None = None

    @property
    def depth(self) -> int:
        """Items that wait."""
        return len(self._queue)

    def stalled_s(self) -> float:
        """Seconds since an item came that was not taken, nor any other: what the watchdog looks at.

        That those who wait give up one after the other makes it no better.
        """
        since = self._waits_since
        return 0.0 if since is None else asyncio.get_running_loop().time() - since

    def retry_after_s(self) -> float:
        """When a refused caller may find room: the queue's length over the measured throughput."""
        if self._items_per_s is None:
            return 1.0
        wait = (len(self._queue) + 1) / (self._items_per_s * self._semaphore.count)
        return min(max(1.0, wait), MAX_RETRY_S)

    async def submit(self, item: Item, deadline: float) -> Answer:
        """Waits for an item's answer.

        Args:
          item: what to run.
          deadline: in the event loop's time; covers the queue and the run.

        Raises:
          Problem: "draining" while closing, "queue-full", or "deadline".
          Exception: what running this item raised.
        """
        now = asyncio.get_running_loop().time()
        if self._closed:
            raise problems.Problem("draining", retry_after_s=1.0)
        if deadline <= now:
            raise problems.Problem("deadline", retry_after_s=self.retry_after_s())
        if len(self._queue) >= self.queue_size:
            raise problems.Problem("queue-full", retry_after_s=self.retry_after_s())
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.create_task(self._serve(), name="batcher")
        if self._waits_since is None:  # the queue was empty: the watchdog's clock starts here
            self._waits_since = now
        future = asyncio.get_running_loop().create_future()
        entry = _Entry(item, deadline, now, future)
        self._queue.append(entry)
        self._changed.set()
        # One clock for the wait and the run: a client cares for neither, only for their sum.
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                return await future
        except TimeoutError:
            if not limit.expired():  # the engine's own, not ours
                raise
            raise problems.Problem("deadline", retry_after_s=self.retry_after_s()) from None
        finally:
            # The caller left, or ran out of time, before a batch took the item. Removed at once
            # rather than skipped later: a dead item must not hold a place in a bounded queue.
            if entry in self._queue:
                self._queue.remove(entry)
                self._dropped()

    async def close(self, drain_s: float) -> None:
        """Refuses new items, lets those accepted finish for `drain_s`, and fails the rest."""
        self._closed = True  # first: else what comes now would wait for a worker that never runs
        loop = asyncio.get_running_loop()
        end = loop.time() + drain_s
        while (self._queue or self._running) and loop.time() < end:
            # Between two batches nothing runs, and there is no event for "the next has begun".
            pending = [*self._running] or [asyncio.create_task(asyncio.sleep(0.005))]
            await asyncio.wait(
                pending, timeout=end - loop.time(), return_when=asyncio.FIRST_COMPLETED
            )
        tasks = [*self._running, *([self._loop_task] if self._loop_task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for entry in [*self._queue]:
            if not entry.future.done():
                entry.future.set_exception(problems.Problem("draining", retry_after_s=1.0))

    async def _serve(self) -> None:
        while True:
            while not self._queue:
                self._waits_since = None
                self._changed.clear()
                await self._changed.wait()
            await self._gather()
            # The batch is taken after the wait for a worker: what came meanwhile goes with it,
            # and what expired meanwhile does not.
            await self._semaphore.acquire()
            batch = self._take()
            if not batch:
                self._semaphore.release()
                continue
            # A task of its own, so that the next batch gathers while this one runs.
            task = asyncio.create_task(self._answer(batch), name="batch")
            self._running.add(task)
            task.add_done_callback(functools.partial(self._finished, batch))

    def _finished(self, batch: list[_Entry[Item]], task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._semaphore.release()
        for entry in batch:  # of a task that was cancelled, even before it began
            if not entry.future.done():
                entry.future.set_exception(problems.Problem("draining", retry_after_s=1.0))
        if not task.cancelled() and (error := task.exception()):
            log.error("a batch failed outside its engine: %r", error)

    async def _gather(self) -> None:
        """Waits until a batch is full or its oldest item has waited long enough."""
        loop = asyncio.get_running_loop()
        while self._queue and len(self._queue) < self.max_batch:
            end = self._queue[0].arrived + self.max_wait_s
            if loop.time() >= end:
                return
            self._changed.clear()  # before the wait, so that an item that comes now ends it
            try:
                async with asyncio.timeout_at(end):
                    await self._changed.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Entry[Item]]:
        """The oldest live items: a full batch, or one worker's share of what waits.

        A worker that took all would leave the next one idle, and on LiteRT, which runs a batch row
        by row, make the first item wait for the last.
        """
        now = asyncio.get_running_loop().time()
        share = math.ceil(len(self._queue) / self._semaphore.count)
        batch: list[_Entry[Item]] = []
        while self._queue and len(batch) < min(self.max_batch, max(1, share)):
            entry = self._queue.popleft()
            if _is_live(entry, now):
                batch.append(entry)
            else:
                self._dropped()
        self._waits_since = now if self._queue else None
        return batch

    async def _answer(self, batch: list[_Entry[Item]]) -> None:
        started = asyncio.get_running_loop().time()
        try:
            answers = await self._run_batch(batch)
        except Exception as error:
            # A Problem says that the engine is not there; anything else may be one item's fault,
            # and that item must not take its batch mates with it.
            if isinstance(error, problems.Problem) or len(batch) == 1:
                answers = [error] * len(batch)
            else:
                log.warning("a batch of %d is run item by item: %r", len(batch), error)
                answers = await self._one_by_one(batch)
        run_s = asyncio.get_running_loop().time() - started
        self._measured(len(batch), run_s)
        for entry, answer in zip(batch, answers, strict=True):
            if entry.future.done():  # the caller left meanwhile
                continue
            if isinstance(answer, Exception):
                entry.future.set_exception(answer)
            else:
                entry.future.set_result(answer)
        waits = tuple(started - entry.arrived for entry in batch)
        self._observe(Batch(len(batch), waits, run_s))

    async def _run_batch(self, batch: list[_Entry[Item]]) -> Sequence[Answer | Exception]:
        answers = await self._run([entry.item for entry in batch])
        if len(answers) != len(batch):
            raise RuntimeError(f"a batch of {len(batch)} got {len(answers)} answers")
        return answers

    async def _one_by_one(self, batch: list[_Entry[Item]]) -> list[Answer | Exception]:
        """Finds the item that spoils its batch; a Problem on the way ends it for the rest."""
        answers: list[Answer | Exception] = []
        for place, entry in enumerate(batch):
            if not _is_live(entry, asyncio.get_running_loop().time()):
                answers.append(problems.Problem("deadline"))
                continue
            try:
                answers += await self._run_batch([entry])
            except problems.Problem as problem:
                return answers + [problem] * (len(batch) - place)
            except Exception as error:
                answers.append(error)
        return answers

    def _measured(self, size: int, run_s: float) -> None:
        rate = size / max(run_s, 1e-4)  # a clock too coarse for the batch must not divide by zero
        old = rate if self._items_per_s is None else self._items_per_s
        self._items_per_s = old + SMOOTHING * (rate - old)


def _is_live(entry: _Entry[Any], now: float) -> bool:
    return not entry.future.done() and entry.deadline > now
