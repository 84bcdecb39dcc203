"""How often a key and an address may ask: sliding windows, in this process or in Redis for all.

`admission` counts each request here, first against its address, then against its key. Without
Redis, or an answer of it, each process counts for itself, and allows its share of the rate: no
request fails for an outage.
"""

import asyncio
import contextlib
import itertools
import math
import time
from typing import Any, NamedTuple

import redis.asyncio
import redis.asyncio.retry
import redis.backoff
import redis.exceptions
import structlog
from limits import RateLimitItem, parse
from limits.aio import storage as storage_lib
from limits.aio import strategies

from mmllm.serve import metrics as metrics_lib
from mmllm.serve import problems
from mmllm.serve import settings as settings_lib
from mmllm.serve.guard import addresses, auth, redis_breaker

PREFIX = "mmllm:limits:sliding"  # another strategy needs another name: it cannot read these
SWEEP_S = 5.0
MAX_KEYS = 100_000
FORGOTTEN_SHARE = 0.1  # of MAX_KEYS at once, so that a flood of addresses costs no time each

log = structlog.get_logger(__name__)


class Quota(NamedTuple):
    """What is left of the limit that is closest.

    Attributes:
      limit: requests of a window.
      remaining: of them.
      reset_s: seconds until there is more.
    """

    limit: int
    remaining: int
    reset_s: float

    @property
    def headers(self) -> dict[str, str]:
        """The headers that tell a client."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(max(0, math.ceil(self.reset_s))),
        }


class _Count(NamedTuple):
    """What a counter says of one request."""

    passed: bool
    reset: float
    remaining: int
    rate: RateLimitItem


class RateLimited(problems.Problem):
    """The problem "rate-limited", with the quota whose headers go with it."""

    def __init__(self, quota: Quota) -> None:
        super().__init__("rate-limited", retry_after_s=quota.reset_s)
        self.quota = quota


class Limiter:
    """Counts requests.

    Args:
      settings: the rates, and where they are counted.
      metrics: told of refusals, and of times without Redis.
      client: of Redis, in place of one for `redis_url`.
    """

    def __init__(
        self,
        settings: settings_lib.Settings,
        metrics: metrics_lib.Metrics,
        client: redis.asyncio.Redis | None = None,
    ) -> None:
        self._rates = {
            "address": parse(settings.rate_per_address),
            "key": parse(settings.rate_per_key),
        }
        self._shares = {by: _share(rate, settings.workers) for by, rate in self._rates.items()}
        self._metrics = metrics
        self._memory = storage_lib.MemoryStorage()
        self._local = strategies.SlidingWindowCounterRateLimiter(self._memory)
        self._shared: strategies.SlidingWindowCounterRateLimiter | None = None
        if client is None and settings.redis_url is not None:
            client = _client(settings.redis_url)  # connects with its first call, not here
        self._client = client
        if client is not None:
            storage = _redis_storage(client)
            self._shared = strategies.SlidingWindowCounterRateLimiter(storage)
        self._redis_breaker = redis_breaker.RedisBreaker(
            "the rate limit", lambda: metrics.store_error("limits")
        )

    async def hit(self, caller: auth.Caller | None, address: str | None) -> Quota:
        """Counts a request.

        Args:
          caller: whose key is counted; None or an anonymous one has none.
          address: from `addresses.client_of`; None where it has been counted already.

        Returns:
          What is left of the limit that is closest.

        Raises:
          RateLimited: one of them is used up; `retry_after_s` says until when.
        """
        counted: list[Quota] = []
        if address is not None:
            counted.append(await self._count("address", addresses.limit_key(address)))
        if caller is not None and caller.kind != auth.ANONYMOUS:
            # A name of a key and a token's subject may be the same word and be two callers.
            counted.append(await self._count("key", f"{caller.kind}:{caller.name}"))
        if not counted:  # nobody in particular, whose address was counted before
            rate = self._rates["address"]
            return Quota(rate.amount, rate.amount, 0.0)
        return min(counted, key=lambda quota: quota.remaining / quota.limit)

    async def close(self) -> None:
        """Lets go of Redis."""
        if self._memory.timer is not None:
            self._memory.timer.cancel()
        if self._client is not None:
            with contextlib.suppress(redis.exceptions.RedisError, OSError):
                await self._client.aclose()

    async def _count(self, by: str, who: str) -> Quota:
        counted = await self._count_shared(by, who)
        if counted is None:
            self._bound_memory()
            # Requests spread over the processes, so each allows its part of the rate.
            counted = await _count_in(self._local, self._shares[by], by, who)
        left_s = max(0.0, counted.reset - time.time())
        quota = Quota(counted.rate.amount, max(0, counted.remaining), left_s)
        # What is left is read after the count; a refusal that tells of more contradicts itself.
        if not counted.passed:
            self._metrics.rate_limited(by)
            raise RateLimited(quota._replace(remaining=0))
        return quota

    async def _count_shared(self, by: str, who: str) -> _Count | None:
        """What Redis counts; None where there is none, or it does not answer."""
        shared = self._shared
        if shared is None:
            return None
        return await self._redis_breaker.call(lambda: _count_in(shared, self._rates[by], by, who))

    def _bound_memory(self) -> None:
        """Takes the sweep of old counts out of the library's hands, which do it at each request."""
        memory = self._memory
        if len(memory.expirations) > MAX_KEYS:
            log.warning("too many addresses ask: the oldest counts are forgotten", most=MAX_KEYS)
            # In the order in which they began: a flood frees nobody who was counted lately.
            count = max(1, round(FORGOTTEN_SHARE * MAX_KEYS))
            for key in list(itertools.islice(memory.expirations, count)):
                for counts in (memory.storage, memory.expirations, memory.locks):
                    counts.pop(key, None)
        # With a timer in place the library starts none of its own, which would sweep each time.
        if memory.timer is None or memory.timer.done():
            memory.timer = asyncio.create_task(_sweep(memory))


def _share(rate: RateLimitItem, workers: int) -> RateLimitItem:
    """What one of several processes allows, so that together they allow the rate."""
    # Rounded up, so that a low rate does not become none.
    return type(rate)(math.ceil(rate.amount / workers), rate.multiples)


async def _count_in(
    limiter: strategies.RateLimiter, rate: RateLimitItem, by: str, who: str
) -> _Count:
    passed = await limiter.hit(rate, by, who)
    stats = await limiter.get_window_stats(rate, by, who)
    return _Count(passed, float(stats.reset_time), int(stats.remaining), rate)


async def _sweep(memory: storage_lib.MemoryStorage) -> None:
    await asyncio.sleep(SWEEP_S)
    now = time.time()
    for key in [key for key, end in memory.expirations.items() if end <= now]:
        await memory.clear(key)


def _client(url: str) -> redis.asyncio.Redis:
    return redis.asyncio.from_url(
        url,
        socket_timeout=redis_breaker.TIMEOUT_S,
        socket_connect_timeout=redis_breaker.TIMEOUT_S,
        # One try: a request is better counted here than late.
        retry=redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0),
        max_connections=64,
    )


def _redis_storage(client: redis.asyncio.Redis) -> storage_lib.RedisStorage:
    options: dict[str, Any] = {"connection_pool": client.connection_pool}
    return storage_lib.RedisStorage(
        "async+redis://",  # not looked at beside a pool
        wrap_exceptions=True,
        implementation="redispy",
        key_prefix=PREFIX,
        **options,
    )
