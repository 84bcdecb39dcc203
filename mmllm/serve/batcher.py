"""Gathers single requests into batches: a bounded queue a task, fair turns at the workers.

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
LONGEST_RETRY_S = 60.0

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


class Turns:
    """Permits to use a worker, given in the order they are asked for, whichever task asks.

    One object is shared by all batchers of a process: a task with a long queue has to line up for
    each of its batches, so it cannot starve another.

    Args:
      count: workers, at least 1.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._permits = asyncio.Semaphore(count)

    async def take(self) -> None:
        await self._permits.acquire()

    def give(self) -> None:
        self._permits.release()


@dataclasses.dataclass(eq=False)
class _Waiting(Generic[Item]):
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
      turns: shared permits to run.
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
        turns: Turns,
        observe: Callable[[Batch], None] = lambda batch: None,
        dropped: Callable[[], None] = lambda: None,
    ) -> None:
        self._run, self._observe, self._dropped, self._turns = run, observe, dropped, turns
        self.max_batch, self.max_wait_s, self.queue_size = max_batch, max_wait_s, queue_size
        self._queue: collections.deque[_Waiting[Item]] = collections.deque()
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
        wait = (len(self._queue) + 1) / (self._items_per_s * self._turns.count)
        return min(max(1.0, wait), LONGEST_RETRY_S)

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
        if self._waits_since is None:
            self._waits_since = now
        future = asyncio.get_running_loop().create_future()
        waiting = _Waiting(item, deadline, now, future)
        self._queue.append(waiting)
        self._changed.set()
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                return await future
        except TimeoutError:
            if not limit.expired():  # the engine's own, not ours
                raise
            raise problems.Problem("deadline", retry_after_s=self.retry_after_s()) from None
        finally:
            if waiting in self._queue:  # the caller left, or ran out of time, before its turn
                self._queue.remove(waiting)
                self._dropped()

    async def close(self, drain_s: float) -> None:
        """Refuses new items, lets those accepted finish for `drain_s`, and fails the rest."""
        self._closed = True
        loop = asyncio.get_running_loop()
        end = loop.time() + drain_s
        while (self._queue or self._running) and loop.time() < end:
            pending = [*self._running] or [asyncio.create_task(asyncio.sleep(0.005))]
            await asyncio.wait(
                pending, timeout=end - loop.time(), return_when=asyncio.FIRST_COMPLETED
            )
        tasks = [*self._running, *([self._loop_task] if self._loop_task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for waiting in [*self._queue]:
            if not waiting.future.done():
                waiting.future.set_exception(problems.Problem("draining", retry_after_s=1.0))

    async def _serve(self) -> None:
        while True:
            while not self._queue:
                self._waits_since = None
                self._changed.clear()
                await self._changed.wait()
            await self._gather()
            await self._turns.take()
            batch = self._take()
            if not batch:
                self._turns.give()
                continue
            task = asyncio.create_task(self._answer(batch), name="batch")
            self._running.add(task)
            task.add_done_callback(functools.partial(self._finished, batch))

    def _finished(self, batch: list[_Waiting[Item]], task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._turns.give()
        for waiting in batch:  # of a task that was cancelled, even before it began
            if not waiting.future.done():
                waiting.future.set_exception(problems.Problem("draining", retry_after_s=1.0))
        if not task.cancelled() and (error := task.exception()):
            log.error("a batch failed outside its engine: %r", error)

    async def _gather(self) -> None:
        """Waits until a batch is full or its oldest item has waited long enough."""
        loop = asyncio.get_running_loop()
        while self._queue and len(self._queue) < self.max_batch:
            end = self._queue[0].arrived + self.max_wait_s
            if loop.time() >= end:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout_at(end):
                    await self._changed.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Waiting[Item]]:
        """The oldest live items: a full batch, or one worker's share of what waits.

        A worker that took all would leave the next one idle, and on LiteRT, which runs a batch row
        by row, make the first item wait for the last.
        """
        now = asyncio.get_running_loop().time()
        share = math.ceil(len(self._queue) / self._turns.count)
        batch: list[_Waiting[Item]] = []
        while self._queue and len(batch) < min(self.max_batch, max(1, share)):
            waiting = self._queue.popleft()
            if _lives(waiting, now):
                batch.append(waiting)
            else:
                self._dropped()
        self._waits_since = now if self._queue else None
        return batch

    async def _answer(self, batch: list[_Waiting[Item]]) -> None:
        started = asyncio.get_running_loop().time()
        try:
            answers = await self._together(batch)
        except Exception as error:
            if isinstance(error, problems.Problem) or len(batch) == 1:
                answers = [error] * len(batch)
            else:
                log.warning("a batch of %d is run item by item: %r", len(batch), error)
                answers = await self._one_by_one(batch)
        run_s = asyncio.get_running_loop().time() - started
        self._measured(len(batch), run_s)
        for waiting, answer in zip(batch, answers, strict=True):
            if waiting.future.done():  # the caller left meanwhile
                continue
            if isinstance(answer, Exception):
                waiting.future.set_exception(answer)
            else:
                waiting.future.set_result(answer)
        waits = tuple(started - waiting.arrived for waiting in batch)
        self._observe(Batch(len(batch), waits, run_s))

    async def _together(self, batch: list[_Waiting[Item]]) -> Sequence[Answer | Exception]:
        answers = await self._run([waiting.item for waiting in batch])
        if len(answers) != len(batch):
            raise RuntimeError(f"a batch of {len(batch)} got {len(answers)} answers")
        return answers

    async def _one_by_one(self, batch: list[_Waiting[Item]]) -> list[Answer | Exception]:
        """Finds the item that spoils its batch; a Problem on the way ends it for the rest."""
        answers: list[Answer | Exception] = []
        for place, waiting in enumerate(batch):
            if not _lives(waiting, asyncio.get_running_loop().time()):
                answers.append(problems.Problem("deadline"))
                continue
            try:
                answers += await self._together([waiting])
            except problems.Problem as problem:
                return answers + [problem] * (len(batch) - place)
            except Exception as error:
                answers.append(error)
        return answers

    def _measured(self, size: int, run_s: float) -> None:
        rate = size / max(run_s, 1e-4)
        old = rate if self._items_per_s is None else self._items_per_s
        self._items_per_s = old + SMOOTHING * (rate - old)


def _lives(waiting: _Waiting[Any], now: float) -> bool:
    return not waiting.future.done() and waiting.deadline > now
