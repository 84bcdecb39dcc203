"""A service that has started, for tests below HTTP: run one, read its metrics, draw a picture."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Any

from PIL import Image

from mmllm.serve import metrics
from mmllm.serve.engine import bundles, service
from tests.serve.engines import Faults
from tests.serve.waiting import BOUND_S


def check(
    settings: Any, test: Callable[[service.Service], Awaitable[None]], faults: Faults | None = None
) -> metrics.Metrics:
    """Runs a test with a started service."""
    seen = metrics.Metrics()

    async def run() -> None:
        make = bundles.Bundle.maker if faults is None else faults.maker
        made = service.Service(settings, seen, make)
        await made.start()
        try:
            await test(made)
        finally:
            if faults is not None:
                faults.release.set()
            await made.close()

    asyncio.run(asyncio.wait_for(run(), 2 * BOUND_S))
    return seen


def sample(seen: metrics.Metrics, name: str, /, **labels: str) -> float:
    """What a metric says."""
    return seen.registry.get_sample_value(name, labels) or 0.0


def png(size: tuple[int, int]) -> bytes:
    """A white picture."""
    file = io.BytesIO()
    Image.new("RGB", size, "white").save(file, "PNG")
    return file.getvalue()
