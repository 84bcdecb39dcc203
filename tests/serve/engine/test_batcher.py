"""The batcher: what runs together, what is refused or dropped, and who gets which error."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mmllm.serve import problems
from mmllm.serve.engine import batcher
from tests.serve.waiting import BOUND_S, until

SOON = 0.02  # s: a deadline that a test lets pass


class Engine:
    """Doubles numbers; stops in front of each batch while its gate is shut."""

    def __init__(self, spoils: Callable[[Any], bool] = lambda item: False) -> None:
        self.batches: list[list[Any]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._spoils = spoils

    async def run(self, items: list[Any]) -> list[Any]:
        self.batches.append(items)
        await self.gate.wait()
        if any(map(self._spoils, items)):
            raise RuntimeError("spoiled")
        return [2 * item for item in items]


def make(engine: Engine, workers: int = 1, **options: Any) -> batcher.Batcher[Any, Any]:
    semaphore = batcher.WorkerSemaphore(workers)
    defaults = {"max_batch": 4, "max_wait_s": 0.0, "queue_size": 8, "semaphore": semaphore}
    return batcher.Batcher(engine.run, **{**defaults, **options})


def later(seconds: float = BOUND_S) -> float:
    return asyncio.get_running_loop().time() + seconds


def ask(queue: batcher.Batcher[Any, Any], item: Any, seconds: float = BOUND_S) -> asyncio.Task:
    return asyncio.create_task(queue.submit(item, later(seconds)))


async def held(queue: batcher.Batcher[Any, Any], engine: Engine) -> asyncio.Task:
    """Sends an item that keeps the only worker until the gate opens."""
    engine.gate.clear()
    task = ask(queue, 1000)
    await until(lambda: [1000] in engine.batches)
    return task


def code_of(result: Any) -> str:
    assert isinstance(result, problems.Problem), result
    return result.code


def check(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), BOUND_S))


def test_what_waits_runs_together_up_to_the_most():
    async def test() -> None:
        engine = Engine()
        queue = make(engine)
        first = await held(queue, engine)
        rest = [ask(queue, number) for number in range(6)]
        await until(lambda: queue.depth == 6)
        engine.gate.set()
        assert await asyncio.gather(*rest) == [0, 2, 4, 6, 8, 10]
        assert await first == 2000
        assert engine.batches == [[1000], [0, 1, 2, 3], [4, 5]]
        await queue.close(1.0)

    check(test)


def test_a_full_batch_does_not_wait_for_its_time():
    async def test() -> None:
        engine = Engine()
        queue = make(engine, max_batch=2, max_wait_s=3600.0)
        assert await asyncio.gather(ask(queue, 1), ask(queue, 2)) == [2, 4]
        assert engine.batches == [[1, 2]]
        await queue.close(1.0)

    check(test)


def test_a_batch_goes_half_full_when_its_oldest_item_has_waited():
    async def test() -> None:
        engine = Engine()
        queue = make(engine, max_wait_s=SOON)
        assert await asyncio.gather(ask(queue, 1), ask(queue, 2)) == [2, 4]
        assert engine.batches == [[1, 2]]
        await queue.close(1.0)

    check(test)


def test_a_worker_takes_its_share_and_leaves_the_rest_to_the_others():
    async def test() -> None:
        engine = Engine()
        queue = make(engine, workers=2, max_wait_s=SOON, max_batch=8)
        await asyncio.gather(*(ask(queue, number) for number in range(4)))
        assert engine.batches == [[0, 1], [2], [3]]
        await queue.close(1.0)

    check(test)


def test_a_full_queue_refuses_and_says_when_to_come_back():
    async def test() -> None:
        engine = Engine()
        queue = make(engine, queue_size=2)
        await held(queue, engine)
        waiting = [ask(queue, 1), ask(queue, 2)]
        await until(lambda: queue.depth == 2)
        with pytest.raises(problems.Problem) as raised:
            await queue.submit(3, later())
        assert code_of(raised.value) == "queue-full"
        assert raised.value.retry_after_s == 1.0  # nothing measured yet
        engine.gate.set()
        assert await asyncio.gather(*waiting) == [2, 4]
        await queue.close(1.0)

    check(test)


def test_the_time_to_come_back_follows_the_measured_throughput():
    async def test() -> None:
        queue = make(Engine(), workers=2)
        queue._measured(4, 8.0)  # half an item a second, on each of two workers
        assert queue.retry_after_s() == 1.0
        queue._queue.extend([None] * 9)  # type: ignore[list-item]
        assert queue.retry_after_s() == 10.0
        queue._queue.extend([None] * 990)  # type: ignore[list-item]
        assert queue.retry_after_s() == batcher.MAX_RETRY_S

    check(test)


def test_a_deadline_covers_the_queue_and_the_expired_item_never_runs():
    async def test() -> None:
        engine, dropped = Engine(), []
        queue = make(engine, dropped=lambda: dropped.append(1))
        await held(queue, engine)
        late = ask(queue, 1, SOON)
        with pytest.raises(problems.Problem) as raised:
            await late
        assert code_of(raised.value) == "deadline"
        assert queue.depth == 0
        assert dropped == [1]
        engine.gate.set()
        assert await queue.submit(2, later()) == 4
        assert [1] not in engine.batches
        with pytest.raises(problems.Problem, match="deadline"):
            await queue.submit(3, later(-1.0))
        await queue.close(1.0)

    check(test)


def test_a_deadline_covers_the_run_and_spares_the_others_of_the_batch():
    async def test() -> None:
        engine = Engine()
        queue = make(engine, max_batch=2, max_wait_s=3600.0)
        engine.gate.clear()
        late, other = ask(queue, 1, 10 * SOON), ask(queue, 2)
        await until(lambda: engine.batches)
        with pytest.raises(problems.Problem, match="deadline"):
            await late
        engine.gate.set()
        assert await other == 4
        await queue.close(1.0)

    check(test)


def test_a_caller_who_leaves_is_not_worked_for():
    async def test() -> None:
        engine = Engine()
        queue = make(engine)
        first = await held(queue, engine)
        gone, stays = ask(queue, 1), ask(queue, 2)
        await until(lambda: queue.depth == 2)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert queue.depth == 1
        first.cancel()  # its batch runs: it goes on, and its answer is dropped
        engine.gate.set()
        assert await stays == 4
        assert engine.batches == [[1000], [2]]
        await queue.close(1.0)

    check(test)


def test_an_item_that_spoils_its_batch_fails_alone():
    async def test() -> None:
        engine = Engine(lambda item: item == 2)
        queue = make(engine, max_batch=3, max_wait_s=3600.0)
        results = await asyncio.gather(
            *(ask(queue, number) for number in (1, 2, 3)), return_exceptions=True
        )
        assert results[0] == 2
        assert isinstance(results[1], RuntimeError)
        assert results[2] == 6
        assert engine.batches == [[1, 2, 3], [1], [2], [3]]
        await queue.close(1.0)

    check(test)


def test_an_answer_that_is_an_exception_is_raised_for_its_item_alone():
    async def test() -> None:
        async def run(items: list[Any]) -> list[Any]:
            return [KeyError("this one") if item == 2 else item for item in items]

        queue: batcher.Batcher[int, int] = batcher.Batcher(
            run, max_batch=2, max_wait_s=3600.0, queue_size=8, semaphore=batcher.WorkerSemaphore(1)
        )
        results = await asyncio.gather(ask(queue, 1), ask(queue, 2), return_exceptions=True)
        assert results[0] == 1
        assert isinstance(results[1], KeyError)
        await queue.close(1.0)

    check(test)


def test_a_problem_of_the_engine_reaches_the_whole_batch_without_another_try():
    async def test() -> None:
        batches = []

        async def run(items: list[Any]) -> list[Any]:
            batches.append(items)
            raise problems.Problem("engine-stuck")

        queue: batcher.Batcher[int, int] = batcher.Batcher(
            run, max_batch=2, max_wait_s=3600.0, queue_size=8, semaphore=batcher.WorkerSemaphore(1)
        )
        results = await asyncio.gather(ask(queue, 1), ask(queue, 2), return_exceptions=True)
        assert list(map(code_of, results)) == ["engine-stuck"] * 2
        assert batches == [[1, 2]]
        await queue.close(1.0)

    check(test)


def test_too_few_answers_are_an_error_and_no_hang():
    async def test() -> None:
        async def run(items: list[Any]) -> list[Any]:
            return []

        queue: batcher.Batcher[int, int] = batcher.Batcher(
            run, max_batch=1, max_wait_s=0.0, queue_size=8, semaphore=batcher.WorkerSemaphore(1)
        )
        with pytest.raises(RuntimeError, match="a batch of 1 got 0 answers"):
            await queue.submit(1, later())
        await queue.close(1.0)

    check(test)


def test_a_long_queue_does_not_starve_another_task():
    async def test() -> None:
        engine, semaphore = Engine(), batcher.WorkerSemaphore(1)
        busy = make(engine, max_batch=1, queue_size=100, semaphore=semaphore)
        other = make(engine, max_batch=1, semaphore=semaphore)
        await held(busy, engine)
        many = [ask(busy, number) for number in range(20)]
        few = [ask(other, number) for number in (100, 200)]
        await until(lambda: busy.depth == 20 and other.depth == 2)
        engine.gate.set()
        await asyncio.gather(*many, *few)
        order = [item for (item,) in engine.batches]
        assert order.index(100) <= 3  # one batch of the other at most in between
        assert order.index(200) <= 5
        await asyncio.gather(busy.close(1.0), other.close(1.0))

    check(test)


def test_closing_finishes_what_was_accepted_and_refuses_the_rest():
    async def test() -> None:
        engine = Engine()
        queue = make(engine)
        first = await held(queue, engine)
        second = ask(queue, 1)
        await until(lambda: queue.depth == 1)
        closing = asyncio.create_task(queue.close(BOUND_S))
        await asyncio.sleep(0)
        with pytest.raises(problems.Problem, match="draining"):
            await queue.submit(2, later())
        engine.gate.set()
        await closing
        assert await asyncio.gather(first, second) == [2000, 2]

    check(test)


def test_closing_ends_in_time_and_tells_those_it_leaves():
    async def test() -> None:
        engine = Engine()
        queue = make(engine)
        running = await held(queue, engine)
        waiting = ask(queue, 1)
        await until(lambda: queue.depth == 1)
        await queue.close(SOON)
        results = await asyncio.gather(running, waiting, return_exceptions=True)
        assert list(map(code_of, results)) == ["draining", "draining"]

    check(test)


def test_the_watchdog_sees_a_queue_that_nothing_is_taken_from():
    async def test() -> None:
        engine = Engine()
        queue = make(engine)
        assert queue.stalled_s() == 0.0
        await held(queue, engine)
        waiting = ask(queue, 1)
        await until(lambda: queue.stalled_s() > SOON)
        engine.gate.set()
        await waiting
        assert queue.stalled_s() == 0.0
        await queue.close(1.0)

    check(test)


def test_a_standstill_lasts_though_those_who_wait_give_up_one_by_one():
    async def test() -> None:
        engine = Engine()
        queue = make(engine)
        running = await held(queue, engine)
        for item in range(1, 4):
            before = queue.stalled_s()
            waiting = ask(queue, item)
            await until(lambda: queue.depth == 1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert queue.depth == 0
            await until(lambda before=before: queue.stalled_s() > before)
        engine.gate.set()
        await running
        await until(lambda: queue.stalled_s() == 0.0)
        await queue.close(1.0)

    check(test)


def test_batches_are_observed_with_their_waits():
    async def test() -> None:
        engine, seen = Engine(), []
        queue = make(engine, max_batch=2, max_wait_s=3600.0, observe=seen.append)
        await asyncio.gather(ask(queue, 1), ask(queue, 2))
        (batch,) = seen
        assert batch.size == 2
        assert len(batch.waits_s) == 2
        assert min(*batch.waits_s, batch.run_s) >= 0
        await queue.close(1.0)

    check(test)


def test_a_batch_that_is_cancelled_before_it_begins_tells_its_callers():
    async def test() -> None:
        engine = Engine()
        queue = make(engine)
        waiting_task = ask(queue, "a")
        async with asyncio.timeout(BOUND_S):
            while not queue._running:
                await asyncio.sleep(0)
        for task in [*queue._running]:
            task.cancel()  # its first step has not been taken
        with pytest.raises(problems.Problem, match="draining"):
            await waiting_task
        assert engine.batches == []
        await queue.close(1.0)

    check(test)
