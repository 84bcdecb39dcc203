"""Waits of tests: for a condition, with a bound, instead of for a time."""

import asyncio
from collections.abc import Callable
from typing import Any

BOUND_S = 30.0


async def until(condition: Callable[[], Any], seconds: float = BOUND_S) -> None:
    """Waits for what the event loop or a thread brings about.

    Raises:
      TimeoutError: it did not come.
    """
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
