"""What all tasks of the service do alike: a deadline, the cache, and errors that tell no secrets.

`service` gives it the work of one task; what comes back is the answer and how it was made.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmllm.serve import metrics as metrics_lib
from mmllm.serve import problems
from mmllm.serve.engine import answers, bundles, queues
from mmllm.serve.engine import cache as cache_lib

SMALL_BYTES = 200_000  # hashed in the event loop, in less time than a thread takes to begin
GENERATED = ("caption", "vqa")  # their answers are [text, score]

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """A made answer: what it is, in JSON, how it was run, and how long its picture took."""

    answer: Any
    ran: queues.TaskResult
    decode_s: float = 0.0


class TaskRunner:
    """Runs a task within its deadline, unless the cache has the answer.

    Args:
      cache: of the process.
      metrics: told of whole times and tokens.
      max_s: the longest deadline, and the default.
    """

    def __init__(
        self, cache: cache_lib.ResultCache, metrics: metrics_lib.Metrics, max_s: float
    ) -> None:
        self._cache, self._metrics, self._max_s = cache, metrics, max_s

    async def run(
        self,
        task: str,
        bundle: bundles.Bundle,
        inputs: Sequence[bytes],
        options: Mapping[str, Any],
        work: Callable[[float], Awaitable[Outcome]],
        deadline_s: float | None,
    ) -> tuple[Any, answers.Provenance]:
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
            if task in GENERATED:
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

        async with self.deadline(task, deadline_s) as deadline:
            digest = await _digest(inputs)
            key = cache_lib.key_of(task, bundle.fingerprint, digest, **options)
            value, cached = await self._cache.get_or_make(task, key, lambda: make(deadline), keep)
        seconds = loop.time() - started
        self._metrics.stage(task, "total", seconds)
        decode_s, queue_s, engine_s = (0.0, 0.0, 0.0) if cached else value["times"]
        made = answers.Provenance(
            value["model"],
            value["fingerprint"],
            value["engine"],
            value["degraded"],
            cached,
            answers.Timings(decode_s, queue_s, engine_s, seconds),
        )
        return value["answer"], made

    @contextlib.asynccontextmanager
    async def deadline(self, task: str, deadline_s: float | None) -> AsyncIterator[float]:
        """Gives the deadline in the loop's time; a Problem when it is over, or as `masked` does."""
        seconds = self._max_s if deadline_s is None else max(0.0, min(deadline_s, self._max_s))
        deadline = asyncio.get_running_loop().time() + seconds
        limit = asyncio.timeout_at(deadline)
        with masked(task):
            try:
                async with limit:
                    yield deadline
            except TimeoutError:
                if not limit.expired():
                    raise
                raise problems.Problem("deadline", retry_after_s=1.0) from None


@contextlib.contextmanager
def masked(task: str) -> Iterator[None]:
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
