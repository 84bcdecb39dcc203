"""Threads that each hold a model of their own, and the watch that replaces one that hangs.

LiteRT's interpreter is not safe to share, so a model is made, used and freed in one thread. The
pool hands a batch to whichever thread is idle. A thread cannot be killed: one that takes too long
is abandoned with its model and another takes its place, however often that has to be tried. After
a few hanging threads, or a while without any that works, the process says it should be restarted.
"""

import asyncio
import contextlib
import dataclasses
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from mmllm.serve import problems

Model = TypeVar("Model")
Answer = TypeVar("Answer")

# Threads that hang at the same time before the process gives up: what an engine that hangs for good
# takes until its breaker opens (5 by default, and one more a thread), and a few of its probes.
MAX_ABANDONED = 12
MAKE_S = 120.0  # for a model; "jax" compiles for much of a minute on a slow machine
NO_THREAD = "no engine thread is left"
RETRY_S, MAX_RETRY_S = 0.25, 30.0  # between tries to replace a thread; doubles

log = logging.getLogger(__name__)


@dataclasses.dataclass(eq=False)
class _Job:
    function: Callable[[Any], Any]
    future: "asyncio.Future[Any]"
    watch: asyncio.TimerHandle | None = None


class _Worker:
    """One thread: makes its model, then runs one job after another until it gets None."""

    def __init__(self, make_model: Callable[[], Any], workers: "Workers[Any]", name: str) -> None:
        # A queue of its own, not one for all threads: a job must not reach a thread that hangs.
        self.jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self.abandoned = False
        self._make_model, self._workers = make_model, workers
        # A daemon: one that hangs in native code must not keep the process from ending.
        self.thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        try:
            model = self._make_model()
        except BaseException as error:
            self._call_in_loop(_settle, self.ready, None, _as_exception(error))
            return
        self._call_in_loop(_settle, self.ready, None, None)
        while (job := self.jobs.get()) is not None:
            result, error = None, None
            try:
                result = job.function(model)
            except BaseException as raised:
                error = _as_exception(raised)
            self._call_in_loop(self._workers._finished, self, job, result, error)
            del job, result, error  # an idle thread holds on to no picture

    def _call_in_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(function, *arguments)


class Workers(Generic[Model]):
    """A fixed number of threads with a model each.

    Args:
      make_model: makes and warms a model; called once in each thread.
      count: threads.
      name: of the threads, for logs.
      max_abandoned: hanging threads that are replaced; one more is `fatal`.
      make_s: bounds the making of a model, and the time without any thread before it is `fatal`.
      stuck: called for each thread that hangs.

    Attributes:
      count: threads that should be at work.
      fatal: why this process should be restarted, or None.
    """

    def __init__(
        self,
        make_model: Callable[[], Model],
        count: int,
        *,
        name: str = "engine",
        max_abandoned: int = MAX_ABANDONED,
        make_s: float = MAKE_S,
        stuck: Callable[[], None] = lambda: None,
    ) -> None:
        self.count, self.fatal = count, None if count > 0 else "no worker"
        self._make_model, self._name, self._max_abandoned = make_model, name, max_abandoned
        self._make_s, self._stuck = make_s, stuck
        self._no_thread_timer: asyncio.TimerHandle | None = None
        self._idle: asyncio.Queue[_Worker] = asyncio.Queue()
        self._alive: set[_Worker] = set()
        self._abandoned: set[_Worker] = set()
        self._threads: list[threading.Thread] = []
        self._replacing: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def alive(self) -> int:
        """Threads that are idle or at work, without those that hang."""
        return len(self._alive)

    @property
    def hanging(self) -> int:
        """Abandoned threads that have not come back."""
        return len(self._abandoned)

    async def start(self) -> None:
        """Makes all models.

        Raises:
          Exception: what `make_model` raised, or TimeoutError; then no thread is left.
        """
        try:
            # All are waited for, also after an error: no thread may be left that nobody knows.
            made = await asyncio.gather(
                *(self._add() for _ in range(self.count)), return_exceptions=True
            )
            for result in made:
                if isinstance(result, BaseException):
                    raise result
        except BaseException:  # a cancelled start as well
            self.close()
            raise

    async def run(self, function: Callable[[Model], Answer], timeout_s: float) -> Answer:
        """Runs a function with an idle thread's model.

        A caller that is cancelled while the function runs leaves it running; the thread stays
        watched and comes back when it is done.

        Args:
          function: is called in the thread.
          timeout_s: bounds the wait for an idle thread, and then the run.

        Raises:
          Problem: "engine-stuck", or "model-unavailable" if no thread became idle.
          Exception: what the function raised.
        """
        if self._closed or self.fatal:
            raise problems.Problem("model-unavailable", retry_after_s=1.0)
        try:
            async with asyncio.timeout(timeout_s):
                worker = await self._idle.get()
        except TimeoutError:
            raise problems.Problem("model-unavailable", retry_after_s=1.0) from None
        if self._closed:  # while this call waited
            worker.jobs.put(None)
            raise problems.Problem("model-unavailable", retry_after_s=1.0)
        loop = asyncio.get_running_loop()
        job = _Job(function, loop.create_future())
        # A timer and not a timeout around the wait: it must also watch a job whose caller left.
        job.watch = loop.call_later(timeout_s, self._abandon, worker, job)
        worker.jobs.put(job)
        return await job.future

    def close(self) -> None:
        """Ends the threads, each after the job it has; models are freed with them."""
        self._closed = True
        if self._no_thread_timer is not None:
            self._no_thread_timer.cancel()
        for task in self._replacing:
            task.cancel()
        for worker in self._alive:
            worker.jobs.put(None)
        self._alive.clear()

    async def join(self, timeout_s: float) -> bool:
        """Whether all threads but the hanging ones ended in time, after `close`."""
        hanging = {worker.thread for worker in self._abandoned}
        threads = [thread for thread in self._threads if thread not in hanging]
        end = time.monotonic() + timeout_s

        def wait() -> bool:
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))
            return not any(thread.is_alive() for thread in threads)

        return await asyncio.to_thread(wait)

    async def _add(self) -> None:
        worker = _Worker(self._make_model, self, self._name)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(worker.thread)
        limit = asyncio.timeout(self._make_s)
        try:
            async with limit:
                await asyncio.shield(worker.ready)  # the thread goes on whatever becomes of us
        except BaseException:
            worker.jobs.put(None)  # it ends once its model is made
            if limit.expired():
                # It counts as hanging until its model is made after all.
                self._mark_hanging(worker)
                worker.ready.add_done_callback(lambda _: self._abandoned.discard(worker))
                raise TimeoutError(f"no model within {self._make_s:g} s") from None
            raise
        if self._closed:
            worker.jobs.put(None)
            return
        if self._no_thread_timer is not None:  # a thread works again: the process need not end
            self._no_thread_timer.cancel()
            self._no_thread_timer = None
        self._alive.add(worker)
        self._idle.put_nowait(worker)

    def _finished(self, worker: _Worker, job: _Job, result: Any, error: Exception | None) -> None:
        """Runs in the loop when a thread has done its job."""
        if job.watch is not None:
            job.watch.cancel()
        if worker.abandoned:
            self._abandoned.discard(worker)
            worker.jobs.put(None)
            log.warning("a thread that hung came back; its answer is dropped and it ends")
            return
        _settle(job.future, result, error)
        if not self._closed:  # else `close` has put the end into its queue
            self._idle.put_nowait(worker)

    def _abandon(self, worker: _Worker, job: _Job) -> None:
        """Runs in the loop when a job has taken too long."""
        self._alive.discard(worker)
        self._mark_hanging(worker)
        _settle(job.future, None, problems.Problem("engine-stuck", retry_after_s=1.0))
        if self._closed or self.fatal:
            return
        # Without any thread no request is answered: give replacements the time that a model takes.
        if not self._alive and self._no_thread_timer is None:
            self._no_thread_timer = worker.loop.call_later(self._make_s, self._give_up, NO_THREAD)
        log.error("an engine thread hangs and is replaced")
        task = asyncio.create_task(self._replace(), name="replace-worker")
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _replace(self) -> None:
        wait_s = RETRY_S
        while not self.fatal:
            try:
                await self._add()
                return
            except Exception as error:
                log.error("no model for the new engine thread, tried again soon: %r", error)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, MAX_RETRY_S)

    def _mark_hanging(self, worker: _Worker) -> None:
        worker.abandoned = True
        self._abandoned.add(worker)
        self._stuck()
        if len(self._abandoned) > self._max_abandoned:
            self._give_up(f"{len(self._abandoned)} engine threads hang")

    def _give_up(self, reason: str) -> None:
        if not (self._closed or self.fatal):
            self.fatal = reason
            log.critical("%s: this process needs a restart", reason)


def _settle(future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if future.done():  # its waiter left
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _as_exception(error: BaseException) -> Exception:
    """An error that a future can hold: StopIteration or SystemExit would end more than a job."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the engine raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped
