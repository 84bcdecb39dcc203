"""The breaker: when it opens, and that one call alone finds out whether the engine is back."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mmllm.serve import problems
from mmllm.serve.engine import breaker
from tests.serve.waiting import BOUND_S, until

OPEN_S = 0.02


def check(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), BOUND_S))


async def works() -> str:
    return "fine"


async def fails() -> str:
    raise OSError("broken")


async def opened(states: list[str], open_s: float = OPEN_S) -> breaker.Breaker:
    made = breaker.Breaker("litert", 2, open_s, states.append)
    for _ in range(2):
        with pytest.raises(OSError, match="broken"):
            await made.run(fails)
    assert made.state == "opened"
    return made


def test_failures_in_a_row_open_it_and_success_starts_the_count_anew():
    async def test() -> None:
        states: list[str] = []
        made = breaker.Breaker("litert", 2, 60.0, states.append)
        for work in (fails, works, fails):
            await asyncio.gather(made.run(work), return_exceptions=True)
        assert made.state == "closed"
        await asyncio.gather(made.run(fails), return_exceptions=True)
        assert states == ["opened"]
        with pytest.raises(problems.Problem, match="model-unavailable") as raised:
            await made.run(works)
        assert raised.value.retry_after_s is not None
        assert 50 < raised.value.retry_after_s <= 61
        assert not made.lets_through()

    check(test)


def test_one_of_many_calls_probes_and_the_rest_are_refused():
    async def test() -> None:
        states: list[str] = []
        made = await opened(states)
        await until(made.lets_through)
        gate, calls = asyncio.Event(), []

        async def slow() -> str:
            calls.append(1)
            await gate.wait()
            return "back"

        tasks = [asyncio.create_task(made.run(slow)) for _ in range(20)]
        await until(lambda: sum(task.done() for task in tasks) == 19)
        assert calls == [1]
        assert made.state == "half-opened"
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results.count("back") == 1
        assert made.state == "closed"
        assert states == ["opened", "half-opened", "closed"]

    check(test)


def test_a_probe_that_fails_opens_it_again():
    async def test() -> None:
        states: list[str] = []
        made = await opened(states)
        await until(made.lets_through)
        with pytest.raises(OSError, match="broken"):
            await made.run(fails)
        assert states == ["opened", "half-opened", "opened"]
        await until(made.lets_through)
        assert await made.run(works) == "fine"
        assert made.state == "closed"

    check(test)


def test_a_cancelled_probe_leaves_the_permit_to_the_next():
    async def test() -> None:
        made = await opened([])
        await until(made.lets_through)
        task = asyncio.create_task(made.run(asyncio.Event().wait))
        await until(lambda: made.state == "half-opened")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert made.state == "half-opened"
        assert await made.run(works) == "fine"
        assert made.state == "closed"

    check(test)


def test_cancelled_calls_are_no_failures():
    async def test() -> None:
        made = breaker.Breaker("litert", 1, 60.0)
        begun = asyncio.Event()

        async def slow() -> None:
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(made.run(slow))
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert made.state == "closed"
        assert await made.run(works) == "fine"

    check(test)


def test_what_began_before_it_opened_does_not_decide_the_probe():
    async def test() -> None:
        made = breaker.Breaker("litert", 2, OPEN_S)
        old, probe = asyncio.Event(), asyncio.Event()

        async def ends_late(gate: asyncio.Event) -> str:
            await gate.wait()
            return "late"

        early = asyncio.create_task(made.run(lambda: ends_late(old)))
        await asyncio.sleep(0)
        for _ in range(2):
            await asyncio.gather(made.run(fails), return_exceptions=True)
        await until(made.lets_through)
        probing = asyncio.create_task(made.run(lambda: ends_late(probe)))
        await until(lambda: made.state == "half-opened")
        old.set()
        assert await early == "late"
        assert made.state == "half-opened"
        probe.set()
        assert await probing == "late"
        assert made.state == "closed"

    check(test)


def test_a_failure_from_before_it_opened_does_not_open_it_again():
    async def test() -> None:
        gate, states = asyncio.Event(), []
        made = breaker.Breaker("litert", 1, OPEN_S, states.append)

        async def slow_to_fail() -> None:
            await gate.wait()
            raise OSError("broken")

        stale = asyncio.create_task(made.run(slow_to_fail))
        await asyncio.sleep(0)
        await asyncio.gather(made.run(fails), return_exceptions=True)
        await until(made.lets_through)
        await made.run(works)
        assert made.state == "closed"  # it is well again
        gate.set()
        await asyncio.gather(stale, return_exceptions=True)
        assert made.state == "closed"
        assert states == ["opened", "half-opened", "closed"]

    check(test)


def test_errors_of_the_input_say_nothing_about_the_engine():
    async def test() -> None:
        made = breaker.Breaker("litert", 2, OPEN_S, ignored=(ValueError,))

        async def refuses() -> None:
            raise ValueError("too long")

        await asyncio.gather(made.run(fails), return_exceptions=True)
        for _ in range(3):
            with pytest.raises(ValueError, match="too long"):
                await made.run(refuses)
        assert made.state == "closed"
        await asyncio.gather(made.run(fails), return_exceptions=True)
        assert made.state == "opened"  # nor did they begin the count anew
        await until(made.lets_through)
        await asyncio.gather(made.run(refuses), return_exceptions=True)
        assert made.state == "half-opened"  # and the permit is left to the next
        await made.run(works)
        assert made.state == "closed"

    check(test)
