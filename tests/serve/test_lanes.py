"""The lanes: each kind of work in its own queue, observed, bounded and drained."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from mmllm.serve import lanes, metrics, pool, problems
from tests.serve.engines import Faults
from tests.serve.waiting import BOUND_S, until


def check(
    settings: Any, test: Callable[[lanes.Lanes], Awaitable[None]], faults: Faults | None = None
) -> metrics.Metrics:
    seen, faults = metrics.Metrics(), faults or Faults()

    async def run() -> None:
        engines = pool.Pool(settings, seen, faults.maker)
        await engines.start()
        made = lanes.Lanes(settings, seen, engines)
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
    async def test(made: lanes.Lanes) -> None:
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

    async def test(made: lanes.Lanes) -> None:
        caption, vqa = made._model["caption"], made._model["vqa"]
        assert (caption.max_batch, caption.queue_size) == (3, 5)
        assert (vqa.max_batch, vqa.queue_size) == (settings.max_batch, settings.queue_size)
        assert made._model["stream"].max_batch == 1

    check(settings, test)


def test_pictures_are_decoded_in_threads_of_their_own(settings):
    async def test(made: lanes.Lanes) -> None:
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
    async def test(made: lanes.Lanes) -> None:
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


def test_the_depth_is_told_and_a_standstill_is_named(make_settings, monkeypatch):
    faults = Faults()

    async def test(made: lanes.Lanes) -> None:
        assert made.stalled() is None
        faults.hanging.add("litert")
        running = asyncio.create_task(made.run("embed_text", ("a",), soon()))
        await until(lambda: faults.calls)
        waiting = asyncio.create_task(made.run("embed_text", ("b",), soon()))
        await until(lambda: made._model["embed_text"].depth == 1)
        made.tell()
        monkeypatch.setattr(made._model["embed_text"], "stalled_s", lambda: 1e6)
        assert made.stalled() == "nothing was taken from the queue of embed_text for 15 s"
        faults.release.set()
        await asyncio.gather(running, waiting)

    seen = check(make_settings(engine_threads=1), test, faults)
    assert seen.registry.get_sample_value("mmllm_queue_depth", {"task": "embed_text"}) == 0


@pytest.mark.parametrize("name", ["decode", "page", "index"])
def test_the_lanes_beside_the_model_are_measured_too(make_settings, name: str):
    depth: list[float | None] = []

    async def test(made: lanes.Lanes) -> None:
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
        lane = made._all()[name]
        await until(lambda: lane.depth == 1)
        made.tell()
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
