"""The workers: a model a thread, and threads that hang."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mmllm.serve import problems
from mmllm.serve.engine import workers
from tests.serve.waiting import BOUND_S, until

SHORT = 0.05  # s: an engine's time in tests of hanging


class Model:
    """Knows the thread it was made in."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()


def check(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), BOUND_S))


async def started(count: int = 2, **options: Any) -> workers.Workers[Model]:
    made = workers.Workers(Model, count, **options)
    await made.start()
    return made


async def ended(made: workers.Workers[Model]) -> None:
    made.close()
    assert await made.join(BOUND_S)


def test_a_model_is_used_in_the_thread_that_made_it():
    async def test() -> None:
        made = await started()
        barrier = threading.Barrier(2)  # both threads are at work at the same time

        def where(model: Model) -> tuple[int, int]:
            barrier.wait(BOUND_S)
            return model.thread, threading.get_ident()

        found = await asyncio.gather(*(made.run(where, BOUND_S) for _ in range(2)))
        assert all(one == other for one, other in found)
        assert len({one for one, _ in found}) == 2
        assert threading.get_ident() not in {one for one, _ in found}
        await ended(made)

    check(test)


def test_an_error_is_the_callers_and_the_thread_goes_on():
    async def test() -> None:
        made = await started(1)

        def fails(model: Model) -> None:
            raise KeyError("broken")

        def ends(model: Model) -> None:
            raise SystemExit

        with pytest.raises(KeyError, match="broken"):
            await made.run(fails, BOUND_S)
        with pytest.raises(RuntimeError, match="SystemExit"):
            await made.run(ends, BOUND_S)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await made.run(lambda model: next(iter(())), BOUND_S)
        assert await made.run(lambda model: 7, BOUND_S) == 7
        await ended(made)

    check(test)


def test_a_model_that_cannot_be_made_fails_the_start():
    async def test() -> None:
        def make() -> Model:
            raise ValueError("damaged")

        made = workers.Workers(make, 2)
        with pytest.raises(ValueError, match="damaged"):
            await made.start()
        with pytest.raises(problems.Problem, match="model-unavailable"):
            await made.run(lambda model: 1, BOUND_S)
        assert await made.join(BOUND_S)

    check(test)


def test_a_start_that_is_cancelled_leaves_no_thread():
    async def test() -> None:
        release, first = threading.Event(), threading.Lock()

        def make() -> Model:
            if not first.acquire(blocking=False):
                release.wait(BOUND_S)
            return Model()

        made = workers.Workers(make, 2)
        task = asyncio.create_task(made.start())
        await until(lambda: made.alive == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert made.alive == 0
        release.set()
        assert await made.join(BOUND_S)

    check(test)


def test_a_thread_that_hangs_is_replaced_and_its_answer_dropped():
    async def test() -> None:
        told: list[int] = []
        made = await started(1, stuck=lambda: told.append(1))
        release = threading.Event()
        before = await made.run(lambda model: model.thread, BOUND_S)
        with pytest.raises(problems.Problem, match="engine-stuck"):
            await made.run(lambda model: release.wait(BOUND_S), SHORT)
        assert told == [1]
        assert made.hanging == 1
        assert await made.run(lambda model: model.thread, BOUND_S) != before
        assert made.fatal is None
        release.set()
        await until(lambda: made.hanging == 0)
        assert made.alive == 1
        await ended(made)

    check(test)


def test_too_many_hanging_threads_are_fatal():
    async def test() -> None:
        made = await started(1, max_abandoned=1)
        release = threading.Event()
        for _ in range(2):
            with pytest.raises(problems.Problem, match="engine-stuck"):
                await made.run(lambda model: release.wait(BOUND_S), SHORT)
        assert made.fatal is not None
        assert "2 engine threads hang" in made.fatal
        with pytest.raises(problems.Problem, match="model-unavailable"):
            await made.run(lambda model: 1, BOUND_S)
        release.set()
        await until(lambda: made.hanging == 0)
        await ended(made)

    check(test)


def test_a_thread_is_replaced_although_its_model_is_made_at_the_third_try_only(monkeypatch):
    async def test() -> None:
        monkeypatch.setattr(workers, "RETRY_S", 0.005)
        faults: list[Exception] = []

        def make() -> Model:
            if faults:
                raise faults.pop()
            return Model()

        made = workers.Workers(make, 2)
        await made.start()
        release = threading.Event()
        faults += [ValueError("the file is gone"), MemoryError()]
        with pytest.raises(problems.Problem, match="engine-stuck"):
            await made.run(lambda model: release.wait(BOUND_S), SHORT)
        await until(lambda: made.alive == 2)
        assert not faults
        assert made.fatal is None
        release.set()
        await until(lambda: made.hanging == 0)
        await ended(made)

    check(test)


def test_to_be_without_a_thread_for_long_is_fatal_when_no_model_can_be_made(monkeypatch):
    async def test() -> None:
        monkeypatch.setattr(workers, "RETRY_S", 0.005)
        models, tries = iter([Model()]), []

        def make() -> Model:
            tries.append(1)
            try:
                return next(models)
            except StopIteration:
                raise ValueError("the file is gone") from None

        made = workers.Workers(make, 1, make_s=4 * SHORT)
        await made.start()
        release = threading.Event()
        with pytest.raises(problems.Problem, match="engine-stuck"):
            await made.run(lambda model: release.wait(BOUND_S), SHORT)
        assert made.fatal is None
        await until(lambda: made.fatal)
        assert made.fatal == "no engine thread is left"
        assert len(tries) > 2
        release.set()
        await until(lambda: made.hanging == 0)
        await ended(made)

    check(test)


def test_a_model_that_is_made_without_end_is_fatal_when_its_thread_was_the_last():
    async def test() -> None:
        release, hanging = threading.Event(), threading.Event()

        def make() -> Model:
            if hanging.is_set():
                release.wait(BOUND_S)
            return Model()

        made = workers.Workers(make, 1, make_s=2 * SHORT)
        await made.start()
        hanging.set()
        with pytest.raises(problems.Problem, match="engine-stuck"):
            await made.run(lambda model: release.wait(BOUND_S), SHORT)
        await until(lambda: made.fatal and made.hanging == 2)
        assert made.fatal == "no engine thread is left"
        release.set()
        await until(lambda: made.hanging == 0)
        await ended(made)

    check(test)


def test_a_start_does_not_wait_for_a_model_without_end():
    async def test() -> None:
        release = threading.Event()

        def make() -> Model:
            release.wait(BOUND_S)
            return Model()

        made = workers.Workers(make, 1, make_s=SHORT)
        with pytest.raises(TimeoutError, match="no model within 0.05 s"):
            await made.start()
        release.set()
        await until(lambda: made.hanging == 0)
        assert made.alive == 0
        assert await made.join(BOUND_S)

    check(test)


def test_a_caller_who_leaves_does_not_lose_the_thread():
    async def test() -> None:
        made = await started(1)
        begun, release = threading.Event(), threading.Event()

        def slow(model: Model) -> None:
            begun.set()
            release.wait(BOUND_S)

        task = asyncio.create_task(made.run(slow, BOUND_S))
        await until(begun.is_set)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with pytest.raises(problems.Problem, match="model-unavailable"):
            await made.run(lambda model: 1, SHORT)  # no thread becomes idle in this time
        release.set()
        assert await made.run(lambda model: 1, BOUND_S) == 1
        await ended(made)

    check(test)


def test_a_thread_is_watched_although_its_caller_left():
    async def test() -> None:
        made = await started(1)
        begun, release = threading.Event(), threading.Event()

        def hangs(model: Model) -> None:
            begun.set()
            release.wait(BOUND_S)

        task = asyncio.create_task(made.run(hangs, 4 * SHORT))
        await until(begun.is_set)
        task.cancel()
        await until(lambda: made.hanging == 1)
        assert await made.run(lambda model: 1, BOUND_S) == 1
        release.set()
        await until(lambda: made.hanging == 0)
        await ended(made)

    check(test)


def test_an_idle_thread_holds_on_to_nothing():
    async def test() -> None:
        import weakref

        class Big:
            pass

        made = await started(1)
        big = Big()
        gone = weakref.ref(big)
        await made.run(lambda model, big=big: None, BOUND_S)
        del big
        await until(lambda: gone() is None)
        await ended(made)

    check(test)
