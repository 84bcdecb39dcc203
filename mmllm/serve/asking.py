"""What all tasks of the service do alike: a deadline, the cache, and errors that tell no secrets.

`service` gives it the work of one task; what comes back is the answer and how it was made.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmllm.serve import answers, bundles, lanes, problems
from mmllm.serve import cache as cache_lib
from mmllm.serve import metrics as metrics_lib

SMALL_BYTES = 200_000  # hashed in the event loop, in less time than a thread takes to begin
DECODED = ("caption", "vqa")  # their answers are [text, score]

log = logging.getLogger(__name__)


class Work(NamedTuple):
    """A made answer: what it is, in JSON, how it was run, and how long its picture took."""

    answer: Any
    ran: lanes.Ran
    decode_s: float = 0.0


class Asking:
    """Asks the cache, or has the work done.

    Args:
      cache: of the process.
      metrics: told of whole times and tokens.
      most_s: the longest deadline, and the default.
    """

    def __init__(
        self, cache: cache_lib.ResultCache, metrics: metrics_lib.Metrics, most_s: float
    ) -> None:
        self._cache, self._metrics, self._most_s = cache, metrics, most_s

    async def ask(
        self,
        task: str,
        bundle: bundles.Bundle,
        inputs: Sequence[bytes],
        options: Mapping[str, Any],
        work: Callable[[float], Awaitable[Work]],
        deadline_s: float | None,
    ) -> tuple[Any, answers.Made]:
        """An answer from the cache, from a request that is on its way, or made now.

        Args:
          task: for key and metrics.
          bundle: the model that serves.
          inputs: files or texts.
          options: whatever else changes the answer.
          work: makes it, given the deadline in the event loop's time.
          deadline_s: seconds from now; None: the longest.

        Raises:
          Problem: what `work` raised, or "internal" for what it should not have.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()

        async def make(deadline: float) -> dict[str, Any]:
            done = await work(deadline)
            if task in DECODED:
                self._metrics.tokens(task, len(bundle.tokenizer.encode(done.answer[0])))
            return {
                "answer": done.answer,
                "model": done.ran.bundle.name,
                "fingerprint": done.ran.bundle.fingerprint,
                "engine": done.ran.engine,
                "degraded": done.ran.degraded,
                "times": [done.decode_s, done.ran.queue_s, done.ran.engine_s],
            }

        def keep(value: Mapping[str, Any]) -> bool:
            # An answer of the fallback, or of a model that came meanwhile, is not this key's.
            return not value["degraded"] and value["fingerprint"] == bundle.fingerprint

        async with self.bounded(task, deadline_s) as deadline:
            digest = await _digest(inputs)
            key = cache_lib.key_of(task, bundle.fingerprint, digest, **options)
            value, cached = await self._cache.get_or_make(task, key, lambda: make(deadline), keep)
        seconds = loop.time() - started
        self._metrics.stage(task, "total", seconds)
        decode_s, queue_s, engine_s = (0.0, 0.0, 0.0) if cached else value["times"]
        made = answers.Made(
            value["model"],
            value["fingerprint"],
            value["engine"],
            value["degraded"],
            cached,
            answers.Timings(decode_s, queue_s, engine_s, seconds),
        )
        return value["answer"], made

    @contextlib.asynccontextmanager
    async def bounded(self, task: str, deadline_s: float | None) -> AsyncIterator[float]:
        """Gives the deadline in the loop's time, and a Problem when it is over; see also `told`."""
        seconds = self._most_s if deadline_s is None else max(0.0, min(deadline_s, self._most_s))
        deadline = asyncio.get_running_loop().time() + seconds
        limit = asyncio.timeout_at(deadline)
        with told(task):
            try:
                async with limit:
                    yield deadline
            except TimeoutError:
                if not limit.expired():
                    raise
                raise problems.Problem("deadline", retry_after_s=1.0) from None


@contextlib.contextmanager
def told(task: str) -> Iterator[None]:
    """Turns what nobody foresaw into the Problem "internal"; its cause goes to the log alone."""
    try:
        yield
    except problems.Problem:
        raise
    except Exception as error:
        log.exception("%s failed", task)
        raise problems.Problem("internal") from error


async def _digest(inputs: Sequence[bytes]) -> str:
    """Hex sha256 of inputs, each with its length so that none runs into the next."""

    def digest() -> str:
        whole = hashlib.sha256()
        for data in inputs:
            whole.update(len(data).to_bytes(8, "big"))
            whole.update(data)
        return whole.hexdigest()

    if sum(map(len, inputs)) < SMALL_BYTES:
        return digest()
    return await asyncio.to_thread(digest)
