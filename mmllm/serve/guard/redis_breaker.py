"""Calls to Redis that never fail a request.

They give up soon, and after one that failed Redis is left alone for a while.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import limits.errors
import redis.exceptions
import structlog

TIMEOUT_S = 0.1  # of a connection and of an answer
PAUSE_S = 2.0  # without Redis after it failed to answer
FAILURES = (
    limits.errors.StorageError,
    redis.exceptions.RedisError,
    OSError,
    TimeoutError,
)

T = TypeVar("T")
log = structlog.get_logger(__name__)


class RedisBreaker:
    """One user of Redis, who can do without it.

    Args:
      who: for the log, such as "the cache".
      failed: called whenever Redis did not answer.
    """

    def __init__(self, who: str, failed: Callable[[], None]) -> None:
        self._who, self._failed = who, failed
        self._paused_until = 0.0
        self._down = False

    async def call(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """What a call gives; None where Redis is left alone, or does not answer in time."""
        now = time.monotonic()
        if now < self._paused_until:
            return None
        try:
            async with asyncio.timeout(2 * TIMEOUT_S):
                result = await call()
        except FAILURES as error:
            self._paused_until = now + PAUSE_S
            self._failed()
            if not self._down:  # once an outage; the URL may hold a password and stays out
                log.warning(f"{self._who} goes on without Redis", reason=type(error).__name__)
            self._down = True
            return None
        if self._down:
            self._down = False
            log.info(f"{self._who} has Redis again")
        return result
