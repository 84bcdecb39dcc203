"""Streams: pieces in order, errors in time, and no work for a reader who left."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from mmllm.serve import lanes, metrics, pool, problems, streams
from tests.serve.engines import Faults
from tests.serve.waiting import BOUND_S, until


def check(settings: Any, test: Callable[[lanes.Lanes, pool.Pool], Awaitable[None]]) -> None:
    async def run() -> None:
        seen = metrics.Metrics()
        engines = pool.Pool(settings, seen, Faults().maker)
        await engines.start()
        made = lanes.Lanes(settings, seen, engines)
        try:
            await test(made, engines)
        finally:
            await made.close(BOUND_S)
            await engines.close()

    asyncio.run(asyncio.wait_for(run(), BOUND_S))


def soon() -> float:
    return asyncio.get_running_loop().time() + BOUND_S


def test_pieces_come_in_order_and_are_counted(settings):
    async def test(made: lanes.Lanes, engines: pool.Pool) -> None:
        counts: list[int] = []
        generate = lambda model: iter("abc")  # noqa: E731
        got = [piece async for piece in streams.pieces(made, generate, soon(), counts.append)]
        assert got == ["a", "b", "c"]
        assert counts == [3]

    check(settings, test)


def test_a_reader_who_leaves_stops_the_work(settings):
    async def test(made: lanes.Lanes, engines: pool.Pool) -> None:
        ended, left = threading.Event(), threading.Event()

        def generate(model: Any) -> Iterator[str]:
            try:
                yield "first"
                left.wait(BOUND_S)
                while True:
                    yield "more"
            finally:
                ended.set()

        stream = streams.pieces(made, generate, soon(), lambda count: None)
        assert await anext(stream) == "first"
        await stream.aclose()
        left.set()
        await until(ended.is_set)

    check(settings, test)


def test_an_error_comes_after_the_pieces_before_it(settings):
    async def test(made: lanes.Lanes, engines: pool.Pool) -> None:
        def generate(model: Any) -> Iterator[str]:
            yield "first"
            raise OSError("broken")

        stream = streams.pieces(made, generate, soon(), lambda count: None)
        assert await anext(stream) == "first"
        with pytest.raises(OSError, match="broken"):
            await anext(stream)

    check(settings, test)


def test_another_engine_takes_over_before_the_first_piece_and_not_after(make_settings):
    async def test(made: lanes.Lanes, engines: pool.Pool) -> None:
        broken = {"before"}
        seen: list[Any] = []

        def generate(model: Any) -> Iterator[str]:
            seen.append(model)
            if len(seen) % 2 and "before" in broken:
                raise OSError("broken")
            yield "piece"
            if len(seen) % 2:
                raise OSError("broken")

        async def read() -> list[str]:
            stream = streams.pieces(made, generate, soon(), lambda count: None)
            return [piece async for piece in stream]

        with pytest.raises(OSError, match="broken"):
            await read()  # opens the breaker, which fetches the other engine
        await until(lambda: engines.serving().fallback)
        await until(engines.serving().chosen.breaker.lets_through)
        seen.clear()
        assert await read() == ["piece"]
        broken.clear()
        await until(engines.serving().chosen.breaker.lets_through)
        seen.clear()
        with pytest.raises(problems.Problem, match="model-unavailable"):
            await read()

    check(make_settings(breaker_failures=1, breaker_open_s=0.01, engine_threads=1), test)
