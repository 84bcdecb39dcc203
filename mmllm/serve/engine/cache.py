"""Keeps answers by what they were asked, and lets equal requests at the same time share one run.

The service asks it before it decodes a picture. Answers lie in this process, or in Redis where all
processes share them; a Redis that does not answer is left out for a while and never fails a
request. Values are JSON: nothing that is read back can run.
"""

import asyncio
import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, runtime_checkable

import cachetools
import redis.asyncio
import redis.exceptions

from mmllm.serve import metrics as metrics_lib
from mmllm.serve import problems
from mmllm.serve import settings as settings_lib
from mmllm.serve.guard import redis_breaker

Value = Any
"""What `json` reads and writes."""

PREFIX = "mmllm:answer:1:"
MAX_VALUE_BYTES = 32_000  # larger answers are not kept
CONNECTIONS = 32

log = logging.getLogger(__name__)


def key_of(task: str, fingerprint: str, digest: str, **options: Any) -> str:
    """The key of an answer: equal only where task, model, input and options are.

    Args:
      task: such as "caption".
      fingerprint: of the model.
      digest: hex sha256 of the input.
      **options: whatever else changes the answer.
    """
    # JSON in the order of names: the same options are the same text, and none runs into another.
    whole = json.dumps([task, fingerprint, digest, options], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()


@runtime_checkable
class Store(Protocol):
    """Where answers lie."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes) -> None: ...

    async def close(self) -> None: ...


class LocalStore:
    """Answers in this process: the least recently used goes first, and each after its time.

    Args:
      items: most answers.
      ttl_s: life of an answer.
    """

    def __init__(self, items: int, ttl_s: float) -> None:
        self._kept: cachetools.TTLCache[str, bytes] = cachetools.TTLCache(items, ttl_s)

    async def get(self, key: str) -> bytes | None:
        return self._kept.get(key)

    async def put(self, key: str, value: bytes) -> None:
        self._kept[key] = value

    async def close(self) -> None:
        self._kept.clear()


class RedisStore:
    """Answers in Redis; while it is down, there are none.

    Args:
      client: of `redis.asyncio`, with short timeouts.
      ttl_s: life of an answer.
      failed: called whenever Redis did not answer.
    """

    def __init__(self, client: Any, ttl_s: float, failed: Callable[[], None]) -> None:
        self._client, self._ttl_ms = client, max(1, round(ttl_s * 1000))
        self._redis_breaker = redis_breaker.RedisBreaker("the cache", failed)

    async def get(self, key: str) -> bytes | None:
        value = await self._redis_breaker.call(lambda: self._client.get(PREFIX + key))
        return value if isinstance(value, bytes) else None

    async def put(self, key: str, value: bytes) -> None:
        await self._redis_breaker.call(
            lambda: self._client.set(PREFIX + key, value, px=self._ttl_ms)
        )

    async def close(self) -> None:
        try:
            await self._client.aclose()
        except (redis.exceptions.RedisError, OSError) as error:
            log.info("Redis could not be told goodbye: %s", type(error).__name__)


@dataclasses.dataclass(eq=False)
class _Flight:
    task: "asyncio.Task[Value]"
    waiters: int = 0


class ResultCache:
    """Answers, and the requests that are on their way to one.

    Args:
      settings: `cache_items` (0: nothing is kept), `cache_ttl_s`, `redis_url`.
      metrics: counts hits, misses, joined requests and failures.
      store: instead of the one the settings ask for.
    """

    def __init__(
        self,
        settings: settings_lib.Settings,
        metrics: metrics_lib.Metrics,
        store: Store | None = None,
    ) -> None:
        self._metrics = metrics
        self._flights: dict[str, _Flight] = {}
        self._store: Store | None = store
        self._closed = False
        # Without a store equal requests at the same time still share one run.
        if store is not None or settings.cache_items == 0:
            return
        if settings.redis_url is None:
            self._store = LocalStore(settings.cache_items, settings.cache_ttl_s)
            return
        # More calls than connections wait for one, rather than fail as if Redis were down.
        connections = redis.asyncio.BlockingConnectionPool.from_url(
            settings.redis_url,
            max_connections=CONNECTIONS,
            timeout=redis_breaker.TIMEOUT_S,
            socket_timeout=redis_breaker.TIMEOUT_S,
            socket_connect_timeout=redis_breaker.TIMEOUT_S,
        )
        self._store = RedisStore(
            redis.asyncio.Redis.from_pool(connections),
            settings.cache_ttl_s,
            lambda: metrics.store_error("cache"),
        )

    async def get_or_make(
        self,
        task: str,
        key: str,
        make: Callable[[], Awaitable[Value]],
        keep: Callable[[Value], bool] = lambda value: True,
    ) -> tuple[Value, bool]:
        """An answer that is kept, or on its way, or made now.

        The work goes on while anyone waits for it. An error reaches all who wait and is not kept;
        a deadline is the first request's own, so the others begin anew.

        Args:
          task: for the metrics.
          key: see `key_of`.
          make: makes the answer; not called if it is there.
          keep: whether a made answer may be kept.

        Returns:
          The answer, and whether it was not made for this call.

        Raises:
          Exception: what `make` raised.
        """
        while True:
            flight = self._flights.get(key)
            joined = flight is not None
            if flight is None:
                work = self._fetch(task, key, make, keep)
                flight = _Flight(asyncio.create_task(work, name="flight"))
                # No await since the look-up, so no second flight for the key can have begun.
                self._flights[key] = flight
                flight.task.add_done_callback(functools.partial(self._forget_flight, key, flight))
            else:
                self._metrics.cache(task, "joined")
            flight.waiters += 1
            try:
                # Shielded: one waiter that leaves must not end the work of the others.
                value, made = await asyncio.shield(flight.task)
                return value, joined or not made
            except problems.Problem as problem:
                if not (joined and problem.code == "deadline"):
                    raise  # else round again: the first request's time was shorter than this one's
            except asyncio.CancelledError:
                # Either this waiter was cancelled, or the flight was, by its last other waiter.
                current = asyncio.current_task()
                if not flight.task.cancelled() or (current and current.cancelling()):
                    raise
                if self._closed:
                    raise problems.Problem("draining", retry_after_s=1.0) from None
            finally:
                flight.waiters -= 1
                if flight.waiters == 0 and not flight.task.done():
                    self._forget_flight(key, flight)  # whoever comes now shall not join a dying one
                    flight.task.cancel()

    async def close(self) -> None:
        """Ends what is on its way and forgets what is kept in this process."""
        self._closed = True
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._store is not None:
            await self._store.close()

    def _forget_flight(
        self, key: str, flight: _Flight, task: "asyncio.Task[Value] | None" = None
    ) -> None:
        if self._flights.get(key) is flight:  # and not the one that began after a cancelled one
            del self._flights[key]
        if task is not None and not task.cancelled():
            task.exception()  # seen, even if all who waited have left

    async def _fetch(
        self,
        task: str,
        key: str,
        make: Callable[[], Awaitable[Value]],
        keep: Callable[[Value], bool],
    ) -> tuple[Value, bool]:
        """The kept answer and False, or a made one and True."""
        if self._store is not None and (kept := await self._store.get(key)) is not None:
            try:
                value = json.loads(kept)
            except ValueError:  # not ours, or cut short: as if it were not there
                self._metrics.cache(task, "error")
            else:
                self._metrics.cache(task, "hit")
                return value, False
        self._metrics.cache(task, "miss")
        value = await make()
        if self._store is not None and keep(value):
            stored = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
            # Items are counted, not bytes: the bound of one is what bounds the memory of all.
            if len(stored) <= MAX_VALUE_BYTES:
                await self._store.put(key, stored)
        return value, True
