"""The queues: each kind of work in its own queue, observed, bounded and drained."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mmllm.serve import metrics, problems
from mmllm.serve.engine import pool, queues
from tests.serve.engines import Faults
from tests.serve.waiting import BOUND_S, until


def check(
    settings: Any,
    test: Callable[[queues.TaskQueues], Awaitable[None]],
    faults: Faults | None = None,
) -> metrics.Metrics:
    seen, faults = metrics.Metrics(), faults or Faults()

    async def run() -> None:
        engines = pool.Pool(settings, seen, faults.maker)
        await engines.start()
        made = queues.TaskQueues(settings, seen, engines)
        try:
            await test(made)
        finally:
            faults.release.set()
            await made.close(BOUND_S)
            await engines.close()

    asyncio.run(asyncio.wait_for(run(), BOUND_S))
    return seen


def soon() -> float:
    return asyncio.get_running_loop().time() + BOUND_S


def test_a_task_comes_back_with_its_times_and_how_it_ran(settings, nano):
    async def test(made: queues.TaskQueues) -> None:
        ran = await made.run("embed_text", ("a", "b"), soon())
        np.testing.assert_array_equal(ran.value, nano.embed_texts(["a", "b"]))
        assert (ran.bundle.name, ran.engine, ran.degraded) == ("nano", "litert", False)
        assert ran.queue_s >= 0
        assert ran.engine_s > 0

    seen = check(settings, test)
    for stage in ("queue", "engine"):
        labels = {"task": "embed_text", "stage": stage}
        assert seen.registry.get_sample_value("mmllm_stage_seconds_count", labels) == 1
    labels = {"task": "embed_text"}
    assert seen.registry.get_sample_value("mmllm_batch_size_count", labels) == 1


def test_a_task_has_the_sizes_its_settings_say(make_settings):
    settings = make_settings(batching={"caption": {"max_batch": 3, "queue_size": 5}})

    async def test(made: queues.TaskQueues) -> None:
        caption, vqa = made._model["caption"], made._model["vqa"]
        assert (caption.max_batch, caption.queue_size) == (3, 5)
        assert (vqa.max_batch, vqa.queue_size) == (settings.max_batch, settings.queue_size)
        assert made._model["stream"].max_batch == 1

    check(settings, test)


def test_pictures_are_decoded_in_threads_of_their_own(settings):
    async def test(made: queues.TaskQueues) -> None:
        thread, seconds = await made.decode("caption", threading.current_thread, soon())
        assert thread.name.startswith("decode")
        assert seconds >= 0
        page, _ = await made.decode("ocr", threading.current_thread, soon())
        assert page.name.startswith("page")  # a page that takes long delays no caption
        again = await made.index(threading.current_thread, soon())
        assert again.name.startswith("index")

        def fails() -> None:
            raise problems.Problem("not-an-image")

        with pytest.raises(problems.Problem, match="not-an-image"):
            await made.decode("caption", fails, soon())

    seen = check(settings, test)
    labels = {"task": "caption", "stage": "decode"}
    assert seen.registry.get_sample_value("mmllm_stage_seconds_count", labels) == 1


def test_no_more_pictures_wait_than_the_queue_holds(make_settings):
    async def test(made: queues.TaskQueues) -> None:
        release = threading.Event()
        tasks = [
            asyncio.create_task(made.decode("caption", lambda: release.wait(BOUND_S), soon()))
            for _ in range(6)
        ]
        await until(lambda: any(task.done() for task in tasks))
        release.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        refused = [result for result in results if isinstance(result, problems.Problem)]
        assert {problem.code for problem in refused} == {"queue-full"}
        assert 0 < len(refused) < 6

    check(make_settings(queue_size=2, engine_threads=1), test)


def test_the_depth_is_told_and_a_stall_is_named(make_settings, monkeypatch):
    faults = Faults()

    async def test(made: queues.TaskQueues) -> None:
        assert made.stalled() is None
        faults.hanging.add("litert")
        running = asyncio.create_task(made.run("embed_text", ("a",), soon()))
        await until(lambda: faults.calls)
        waiting = asyncio.create_task(made.run("embed_text", ("b",), soon()))
        await until(lambda: made._model["embed_text"].depth == 1)
        made.report_depths()
        monkeypatch.setattr(made._model["embed_text"], "stalled_s", lambda: 1e6)
        assert made.stalled() == "nothing was taken from the queue of embed_text for 15 s"
        faults.release.set()
        await asyncio.gather(running, waiting)

    seen = check(make_settings(engine_threads=1), test, faults)
    assert seen.registry.get_sample_value("mmllm_queue_depth", {"task": "embed_text"}) == 0


@pytest.mark.parametrize("name", ["decode", "page", "index"])
def test_the_queues_beside_the_model_are_measured_too(make_settings, name: str):
    depth: list[float | None] = []

    async def test(made: queues.TaskQueues) -> None:
        def send(function: Callable[[], Any]) -> asyncio.Task[Any]:
            if name == "index":
                return asyncio.create_task(made.index(function, soon()))
            task = "ocr" if name == "page" else "caption"
            return asyncio.create_task(made.decode(task, function, soon()))

        begun, release = threading.Event(), threading.Event()

        def hold() -> None:
            begun.set()
            release.wait(BOUND_S)

        running = send(hold)
        await until(begun.is_set)
        gone = send(lambda: None)
        queue = made._all()[name]
        await until(lambda: queue.depth == 1)
        made.report_depths()
        depth.append(made._metrics.registry.get_sample_value("mmllm_queue_depth", {"task": name}))
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        release.set()
        await running

    seen = check(make_settings(engine_threads=1), test)
    assert depth == [1]
    sample = seen.registry.get_sample_value
    assert sample("mmllm_queue_depth", {"task": name}) == 0
    assert sample("mmllm_items_dropped_total", {"task": name}) == 1
    assert sample("mmllm_stage_seconds_count", {"task": name, "stage": "queue"}) == 1


def test_pieces_come_in_order_and_are_counted(settings):
    async def test(made: queues.TaskQueues) -> None:
        counts: list[int] = []
        generate = lambda model: iter("abc")  # noqa: E731
        found = [piece async for piece in made.stream(generate, soon(), counts.append)]
        assert found == ["a", "b", "c"]
        assert counts == [3]

    check(settings, test)


def test_a_reader_who_leaves_stops_the_work(settings):
    async def test(made: queues.TaskQueues) -> None:
        ended, left = threading.Event(), threading.Event()

        def generate(model: Any) -> Iterator[str]:
            try:
                yield "first"
                left.wait(BOUND_S)
                while True:
                    yield "more"
            finally:
                ended.set()

        stream = made.stream(generate, soon(), lambda count: None)
        assert await anext(stream) == "first"
        await stream.aclose()
        left.set()
        await until(ended.is_set)

    check(settings, test)


def test_an_error_comes_after_the_pieces_before_it(settings):
    async def test(made: queues.TaskQueues) -> None:
        def generate(model: Any) -> Iterator[str]:
            yield "first"
            raise OSError("broken")

        stream = made.stream(generate, soon(), lambda count: None)
        assert await anext(stream) == "first"
        with pytest.raises(OSError, match="broken"):
            await anext(stream)

    check(settings, test)


def test_another_engine_takes_over_before_the_first_piece_and_not_after(make_settings):
    async def test(made: queues.TaskQueues) -> None:
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
            stream = made.stream(generate, soon(), lambda count: None)
            return [piece async for piece in stream]

        with pytest.raises(OSError, match="broken"):
            await read()  # opens the breaker, which fetches the other engine
        await until(lambda: made._pool.serving().fallback)
        await until(made._pool.serving().chosen.breaker.lets_through)
        seen.clear()
        assert await read() == ["piece"]
        broken.clear()
        await until(made._pool.serving().chosen.breaker.lets_through)
        seen.clear()
        with pytest.raises(problems.Problem, match="model-unavailable"):
            await read()

    check(make_settings(breaker_failures=1, breaker_open_s=0.01, engine_threads=1), test)
