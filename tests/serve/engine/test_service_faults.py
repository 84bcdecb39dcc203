"""The service when things go wrong: engines that break or hang, overload, starts and ends."""

import asyncio
import threading

import pytest

from mmllm.serve import metrics, problems
from mmllm.serve.engine import service
from tests.serve.engines import Faults
from tests.serve.started import check, png, sample
from tests.serve.waiting import BOUND_S, until


def test_a_broken_engine_tells_no_secrets(make_settings, picture_bytes, caplog):
    faults = Faults()
    faults.unmakeable.add("jax")

    async def test(made: service.Service) -> None:
        faults.raising.add("litert")
        codes = []
        for _ in range(3):
            with pytest.raises(problems.Problem) as raised:
                await made.caption(picture_bytes)
            codes.append(raised.value.code)
        assert codes == ["internal", "internal", "model-unavailable"]
        assert raised.value.__cause__ is None or "broken" not in str(raised.value)
        assert made.info().degraded
        faults.raising.clear()
        async with asyncio.timeout(BOUND_S):  # it comes back by itself
            while True:
                try:
                    assert not (await made.caption(picture_bytes)).made.degraded
                    break
                except problems.Problem:
                    await asyncio.sleep(0.01)

    check(make_settings(breaker_failures=2, breaker_open_s=0.2), test, faults)
    assert "caption failed" in caplog.text


def test_a_degraded_answer_says_so_and_is_not_kept(make_settings, picture_bytes):
    faults = Faults()

    async def test(made: service.Service) -> None:
        faults.raising.add("litert")
        with pytest.raises(problems.Problem, match="internal"):
            await made.caption(picture_bytes)
        await until(lambda: made._pool.serving().fallback)
        for _ in range(2):
            answer = await made.caption(picture_bytes)
            assert (answer.made.engine, answer.made.degraded) == ("jax", True)
            assert not answer.made.cached

    check(make_settings(breaker_failures=1, breaker_open_s=600.0), test, faults)


def test_an_engine_that_hangs_costs_one_answer_and_not_the_service(make_settings, picture_bytes):
    faults = Faults()

    async def test(made: service.Service) -> None:
        faults.hanging.add("litert")
        with pytest.raises(problems.Problem, match="engine-stuck"):
            await made.caption(picture_bytes)
        faults.hanging.clear()
        async with asyncio.timeout(BOUND_S):
            while True:
                try:
                    assert (await made.caption(picture_bytes)).text
                    break
                except problems.Problem:  # until the new thread's model is warm
                    await asyncio.sleep(0.01)
        assert made.health.ready().ok

    check(make_settings(engine_timeout_s=0.3, engine_threads=1, breaker_failures=50), test, faults)


def test_a_deadline_holds_although_the_engine_hangs(make_settings, picture_bytes):
    faults = Faults()

    async def test(made: service.Service) -> None:
        faults.hanging.add("litert")
        with pytest.raises(problems.Problem, match="deadline"):
            await made.caption(picture_bytes, deadline_s=0.2)

    check(make_settings(engine_threads=1), test, faults)


def test_overload_is_refused_and_those_accepted_are_answered(make_settings, page_bytes):
    faults = Faults()

    async def test(made: service.Service) -> None:
        faults.hanging.add("litert")
        sizes = [(8 + number, 8) for number in range(12)]
        tasks = [asyncio.create_task(made.embed_image(png(size))) for size in sizes]
        await until(lambda: sum(task.done() for task in tasks) >= 1)
        faults.release.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        refused = [r for r in results if isinstance(r, problems.Problem)]
        assert {problem.code for problem in refused} == {"queue-full"}
        assert all(problem.retry_after_s >= 1 for problem in refused)
        assert len(refused) < len(results)

    check(make_settings(engine_threads=1, queue_size=4, max_batch=2), test, faults)


def test_who_hangs_up_is_not_worked_for(make_settings, picture_bytes, page_bytes):
    faults = Faults()

    async def test(made: service.Service) -> None:
        faults.hanging.add("litert")
        running = asyncio.create_task(made.caption(picture_bytes))
        await until(lambda: faults.calls)
        gone = asyncio.create_task(made.caption(page_bytes))
        await until(lambda: made._queues._model["caption"].depth == 1)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        await until(lambda: made._queues._model["caption"].depth == 0)
        faults.release.set()
        assert (await running).text

    seen = check(make_settings(engine_threads=1), test, faults)
    assert sample(seen, "mmllm_items_dropped_total", task="caption") == 1
    assert sample(seen, "mmllm_batch_size_sum", task="caption") == 1


def test_nothing_is_sent_to_a_service_whose_engines_all_rest(make_settings, picture_bytes):
    faults = Faults()

    async def test(made: service.Service) -> None:
        assert made.health.ready().ok
        faults.raising |= {"litert", "jax"}
        with pytest.raises(problems.Problem, match="internal"):
            await made.caption(picture_bytes)
        await until(lambda: made._pool.serving().fallback)
        with pytest.raises(problems.Problem, match="internal"):
            await made.caption(picture_bytes)
        assert "rests after failures" in made.health.ready().reasons[0]
        assert made.health.live().ok
        faults.raising.clear()
        await until(lambda: made.health.ready().ok)  # so that a request comes and probes it
        assert (await made.caption(picture_bytes)).text
        assert made.health.ready().ok

    check(make_settings(breaker_failures=1, breaker_open_s=0.5), test, faults)


def test_nothing_is_sent_to_a_service_without_an_engine_thread(make_settings, picture_bytes):
    faults = Faults()

    async def test(made: service.Service) -> None:
        faults.hanging.add("litert")
        faults.unmakeable.add("litert")
        with pytest.raises(problems.Problem, match="engine-stuck"):
            await made.caption(picture_bytes)
        assert "no engine thread is at work" in made.health.ready().reasons
        faults.hanging.clear()
        faults.unmakeable.clear()
        await until(lambda: made.health.ready().ok)
        assert (await made.caption(picture_bytes)).text

    settings = make_settings(engine_timeout_s=0.3, engine_threads=1, breaker_failures=50)
    check(settings, test, faults)


@pytest.mark.parametrize("sizes", ["the same", pytest.param("others", marks=pytest.mark.slow)])
def test_a_reload_fails_nothing_that_waits(
    make_settings, picture_bytes, page_bytes, request, sizes: str
):
    faults, of_others = Faults(), sizes == "others"
    folder = request.getfixturevalue("made" if of_others else "other_bundle")
    model = str(folder.folder if of_others else folder)
    long = "q w e r t " * 8  # more than a tiny one reads

    async def test(made: service.Service) -> None:
        old = made.info().fingerprint
        faults.hanging.add("litert")
        first = asyncio.create_task(made.caption(page_bytes))
        await until(lambda: faults.calls)
        requests = [
            asyncio.create_task(work)
            for work in (
                made.caption(picture_bytes, language="fr"),
                made.vqa(picture_bytes, long),
                made.ocr(page_bytes),
                made.embed_image(picture_bytes),
                made.embed_text([long]),
            )
        ]
        queues = made._queues._model
        tasks = ("caption", "vqa", "ocr", "embed_image", "embed_text")
        await until(lambda: sum(queues[task].depth for task in tasks) == len(requests))
        new = (await made.reload(model)).fingerprint
        later = asyncio.create_task(made.caption(picture_bytes))  # in one batch with the old
        await until(lambda: queues["caption"].depth >= 2)
        faults.release.set()
        answers = await asyncio.gather(first, *requests)
        assert {answer.made.fingerprint for answer in answers} == {old}
        assert (await later).made.fingerprint == new
        assert not made.info().degraded
        await until(lambda: not made._pool._releases)

    check(make_settings(engine_threads=1, engine_timeout_s=20.0, deadline_s=20.0), test, faults)


def test_a_start_that_fails_can_be_closed(make_settings):
    async def run() -> None:
        made = service.Service(make_settings(model="/nowhere"), metrics.Metrics())
        with pytest.raises(FileNotFoundError, match="no model"):
            await made.start()
        assert not made.health.startup().ok
        await made.close()

    asyncio.run(asyncio.wait_for(run(), BOUND_S))


def test_a_queue_that_stands_still_for_long_asks_for_a_replacement(settings, monkeypatch):
    async def test(made: service.Service) -> None:
        waited = 20.0
        monkeypatch.setattr(made._queues._model["vqa"], "stalled_s", lambda: waited)
        assert "queue of vqa" in made.health.ready().reasons[0]
        assert not made.health.must_exit
        waited = 50.0
        assert not made.health.live().ok
        assert made.health.must_exit

    check(settings, test, Faults())


def test_closing_finishes_what_was_accepted(make_settings, picture_bytes):
    faults = Faults()

    async def run() -> None:
        made = service.Service(make_settings(), metrics.Metrics(), faults.maker)
        await made.start()
        faults.hanging.add("litert")
        accepted = asyncio.create_task(made.caption(picture_bytes))
        await until(lambda: faults.calls)
        closing = asyncio.create_task(made.close())
        await until(lambda: not made.health.ready().ok)
        with pytest.raises(problems.Problem, match="draining"):
            await made.caption(png((9, 9)))
        faults.release.set()
        await closing
        assert (await accepted).text
        with pytest.raises(problems.Problem, match="model-unavailable"):
            await made.caption(picture_bytes)

    before = threading.active_count()
    asyncio.run(asyncio.wait_for(run(), BOUND_S))
    assert threading.active_count() <= before
