"""How often a key and an address may ask: sliding windows, in this process or in Redis for all.

`gate` counts each request here, first against its address, then against its key. Without an answer
of Redis each process counts for itself, and no request fails for that.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import redis.asyncio
import redis.asyncio.retry
import redis.backoff
import redis.exceptions
import structlog
from limits import RateLimitItem, errors, parse
from limits.aio import storage as storage_lib
from limits.aio import strategies

from mmllm.serve import addresses, auth, problems
from mmllm.serve import metrics as metrics_lib
from mmllm.serve import settings as settings_lib

PREFIX = "mmllm:limits:sliding"  # another strategy needs another name: it cannot read these
REDIS_TIMEOUT_S = 0.1
PAUSE_S = 2.0  # without Redis after it failed to answer
SWEEP_S = 5.0
MOST_KEYS = 100_000

Result = TypeVar("Result")

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
        self._metrics = metrics
        self._memory = storage_lib.MemoryStorage()
        self._local = strategies.SlidingWindowCounterRateLimiter(self._memory)
        self._shared: strategies.SlidingWindowCounterRateLimiter | None = None
        if client is None and settings.redis_url is not None:
            client = _client(settings.redis_url)
        self._client = client
        if client is not None:
            storage = _redis_storage(client)
            self._shared = strategies.SlidingWindowCounterRateLimiter(storage)
        self._paused_until = 0.0
        self._down = False

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
            counted.append(await self._count("key", f"{caller.kind}:{caller.name}"))
        if not counted:
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
        rate = self._rates[by]
        passed, reset, remaining = await self._tried(
            lambda limiter: _count_in(limiter, rate, by, who)
        )
        quota = Quota(rate.amount, max(0, remaining), max(0.0, reset - time.time()))
        if not passed:
            self._metrics.rate_limited(by)
            raise RateLimited(quota._replace(remaining=0))
        return quota

    async def _tried(self, call: Callable[[strategies.RateLimiter], Awaitable[Result]]) -> Result:
        """Asks Redis, or, where it does not answer, this process."""
        now = time.monotonic()
        if self._shared is None or now < self._paused_until:
            self._keep_small()
            return await call(self._local)
        try:
            async with asyncio.timeout(2 * REDIS_TIMEOUT_S):
                result = await call(self._shared)
        except (errors.StorageError, redis.exceptions.RedisError, OSError, TimeoutError) as error:
            self._paused_until = now + PAUSE_S
            self._metrics.store_error("limits")
            if not self._down:  # once an outage
                log.warning("rate limits count without Redis", reason=type(error).__name__)
            self._down = True
            self._keep_small()
            return await call(self._local)
        if self._down:
            self._down = False
            log.info("rate limits have Redis again")
        return result

    def _keep_small(self) -> None:
        """Takes the sweep of old counts out of the library's hands, which do it at each request."""
        if len(self._memory.expirations) > MOST_KEYS:
            log.warning("too many addresses ask: rate limits start anew", most=MOST_KEYS)
            for counts in (self._memory.storage, self._memory.expirations, self._memory.locks):
                counts.clear()
        if self._memory.timer is None or self._memory.timer.done():
            self._memory.timer = asyncio.create_task(_sweep(self._memory))


async def _count_in(
    limiter: strategies.RateLimiter, rate: RateLimitItem, by: str, who: str
) -> tuple[bool, float, int]:
    passed = await limiter.hit(rate, by, who)
    stats = await limiter.get_window_stats(rate, by, who)
    return passed, float(stats.reset_time), int(stats.remaining)


async def _sweep(memory: storage_lib.MemoryStorage) -> None:
    await asyncio.sleep(SWEEP_S)
    now = time.time()
    for key in [key for key, end in memory.expirations.items() if end <= now]:
        await memory.clear(key)


def _client(url: str) -> redis.asyncio.Redis:
    return redis.asyncio.from_url(
        url,
        socket_timeout=REDIS_TIMEOUT_S,
        socket_connect_timeout=REDIS_TIMEOUT_S,
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
