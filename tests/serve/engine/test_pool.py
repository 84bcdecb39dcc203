"""The pool: which engine answers when one breaks or hangs, and reloads under load."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mmllm.serve import metrics, problems
from mmllm.serve.engine import pool
from tests.serve.engines import Faults
from tests.serve.waiting import BOUND_S, until


def check(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 2 * BOUND_S))


def embed(model: Any, items: list[str]) -> list[Any]:
    """The cheapest function of a batch that runs the engine."""
    return list(model.embed_texts(items))


def fingerprint(model: Any, items: list[Any]) -> list[str]:
    return [model.fingerprint for _ in items]


async def started(settings: Any, seen: metrics.Metrics, faults: Faults) -> pool.Pool:
    made = pool.Pool(settings, seen, faults.maker)
    await made.start()
    return made


async def failed(made: pool.Pool, items: list[str], times: int) -> list[Any]:
    return [
        (await asyncio.gather(made.run("embed_text", embed, items), return_exceptions=True))[0]
        for _ in range(times)
    ]


def sample(seen: metrics.Metrics, name: str, /, **labels: str) -> float:
    return seen.registry.get_sample_value(name, labels) or 0.0


def test_a_batch_runs_on_the_chosen_engine(settings):
    async def test() -> None:
        seen, faults = metrics.Metrics(), Faults()
        made = pool.Pool(settings, seen, faults.maker)
        with pytest.raises(problems.Problem, match="model-unavailable"):
            await made.run("embed_text", embed, ["a"])
        await made.start()
        ran = await made.run("embed_text", embed, ["a", "b"])
        assert len(ran.values) == 2
        assert (ran.engine, ran.degraded) == ("litert", False)
        assert ran.bundle.name == "nano"
        assert faults.made == settings.engine_threads
        assert not made.degraded
        await made.close()
        with pytest.raises(problems.Problem, match="model-unavailable"):
            await made.run("embed_text", embed, ["a"])

    check(test)


def test_a_broken_engine_rests_and_the_other_answers_until_it_is_back(make_settings):
    async def test() -> None:
        settings = make_settings(breaker_failures=2, breaker_open_s=0.2, engine_threads=1)
        seen, faults = metrics.Metrics(), Faults()
        made = await started(settings, seen, faults)
        faults.raising.add("litert")
        errors = await failed(made, ["a"], 2)
        assert [type(error) for error in errors] == [RuntimeError, RuntimeError]
        assert made.degraded
        assert sample(seen, "mmllm_breaker_state", engine="litert") == 2
        await until(lambda: made.serving().fallback)  # it is fetched only now
        ran = await made.run("embed_text", embed, ["a"])
        assert (ran.engine, ran.degraded) == ("jax", True)
        labels = {"task": "embed_text", "engine": "jax"}
        assert sample(seen, "mmllm_fallback_answers_total", **labels) == 1
        faults.raising.clear()

        async def back() -> bool:
            return not (await made.run("embed_text", embed, ["a"])).degraded

        async with asyncio.timeout(BOUND_S):
            while not await back():
                await asyncio.sleep(0.01)
        assert not made.degraded
        await made.close()

    check(test)


def test_without_a_fallback_a_broken_engine_is_said_to_be(make_settings):
    async def test() -> None:
        settings = make_settings(breaker_failures=1, breaker_open_s=60.0, engine_threads=1)
        faults = Faults()
        made = await started(settings, metrics.Metrics(), faults)
        faults.raising.add("litert")
        faults.unmakeable.add("jax")
        await failed(made, ["a"], 1)
        await until(lambda: made.serving().loading is None)
        with pytest.raises(problems.Problem, match="model-unavailable") as raised:
            await made.run("embed_text", embed, ["a"])
        assert raised.value.retry_after_s is not None
        assert raised.value.retry_after_s > 1
        await made.close()

    check(test)


def test_a_spoiled_batch_comes_back_before_the_other_engine_is_asked(make_settings):
    async def test() -> None:
        settings = make_settings(breaker_failures=1, breaker_open_s=0.01, engine_threads=1)
        faults = Faults()
        made = await started(settings, metrics.Metrics(), faults)
        faults.raising.add("litert")
        await failed(made, ["a"], 1)
        await until(lambda: made.serving().fallback)
        await until(made.serving().chosen.breaker.lets_through)
        with pytest.raises(RuntimeError, match="broken"):
            await made.run("embed_text", embed, ["a", "b"])
        assert (await made.run("embed_text", embed, ["a"])).engine == "jax"
        await made.close()

    check(test)


def test_an_engine_that_hangs_is_replaced_and_in_the_end_fatal(make_settings):
    async def test() -> None:
        settings = make_settings(engine_timeout_s=0.1, engine_threads=1, breaker_failures=100)
        seen, faults = metrics.Metrics(), Faults()
        made = await started(settings, seen, faults)
        faults.hanging.add("litert")
        with pytest.raises(problems.Problem, match="engine-stuck"):
            await made.run("embed_text", embed, ["a"])
        assert sample(seen, "mmllm_stuck_threads_total", engine="litert") == 1
        faults.hanging.clear()  # the one that hangs goes on hanging
        async with asyncio.timeout(BOUND_S):
            while isinstance((await failed(made, ["a"], 1))[0], problems.Problem):
                await asyncio.sleep(0.01)  # until the new thread's model is warm
        assert made.fatal is None
        made.serving().chosen.workers.fatal = "threads hang"
        assert made.fatal == "threads hang"
        faults.release.set()
        await made.close()

    check(test)


def test_a_reload_under_load_fails_no_request(settings, other_bundle: Path):
    async def test() -> None:
        seen = metrics.Metrics()
        made = pool.Pool(settings, seen)
        await made.start()
        old = made.bundle.fingerprint
        answers: list[str] = []
        stop = asyncio.Event()

        async def client() -> None:
            while not stop.is_set():
                ran = await made.run("embed_text", fingerprint, ["a"])
                assert ran.values == [ran.bundle.fingerprint]  # of the model that says it ran
                answers.append(ran.values[0])

        clients = [asyncio.create_task(client()) for _ in range(8)]
        await until(lambda: answers)
        new = await made.reload(str(other_bundle))
        count = len(answers)
        await until(lambda: len(answers) > count + 20)
        stop.set()
        await asyncio.gather(*clients)
        assert made.bundle is new
        assert set(answers) == {old, new.fingerprint}
        assert answers[-1] == new.fingerprint
        assert sample(seen, "mmllm_reloads_total", result="ok") == 1
        await until(lambda: not made._releases)  # the old one is freed
        await made.close()

    check(test)


def test_a_batch_runs_on_the_model_it_was_made_for(settings, other_bundle: Path):
    async def test() -> None:
        made = pool.Pool(settings, metrics.Metrics())
        await made.start()
        with made.serving() as old:
            new = await made.reload(str(other_bundle))
            ran = await made.run("embed_text", fingerprint, ["a"], old)
            assert ran.values == [ran.bundle.fingerprint] == [old.bundle.fingerprint]
            ran = await made.run("embed_text", fingerprint, ["a"])
            assert ran.values == [new.fingerprint]
            assert made._releases
        await until(lambda: not made._releases)
        assert old.chosen.workers.alive == 0
        await made.close()

    check(test)


def test_the_old_model_loads_no_fallback_in_its_last_batch(make_settings, other_bundle: Path):
    async def test() -> None:
        settings = make_settings(breaker_failures=1, breaker_open_s=60.0, engine_threads=1)
        seen, faults = metrics.Metrics(), Faults()
        made = await started(settings, seen, faults)
        old = made.serving()
        faults.hanging.add("litert")
        last = asyncio.create_task(made.run("embed_text", embed, ["a"]))
        await until(lambda: faults.calls)
        await made.reload(str(other_bundle))
        faults.raising.add("litert")
        faults.release.set()
        with pytest.raises(RuntimeError, match="broken"):
            await last
        await until(lambda: not made._releases)
        assert old.chosen.breaker.state == "opened"
        assert (old.loading, old.fallback) == (None, None)
        assert faults.made == 2  # the two models themselves
        assert sample(seen, "mmllm_breaker_state", engine="litert") == 0  # the new one's
        assert made.blocked is None
        await made.close()

    check(test)


def test_input_that_a_model_refuses_does_not_make_its_engine_rest(make_settings):
    async def test() -> None:
        made = pool.Pool(make_settings(breaker_failures=1), metrics.Metrics())
        await made.start()
        for _ in range(3):
            with pytest.raises(ValueError, match="500 characters"):
                await made.run("embed_text", embed, ["q w e r t y " * 200])
        assert not made.degraded
        await made.close()

    check(test)


def test_it_says_when_no_batch_would_be_tried(make_settings):
    async def test() -> None:
        settings = make_settings(breaker_failures=1, breaker_open_s=60.0, engine_threads=1)
        faults = Faults()
        made = pool.Pool(settings, metrics.Metrics(), faults.maker)
        assert made.blocked is None
        await made.start()
        assert made.blocked is None
        faults.raising.add("litert")
        await failed(made, ["a"], 1)
        assert made.blocked == "engine litert rests after failures, and no other is well"
        await until(lambda: made.serving().fallback)
        assert made.blocked is None
        faults.raising.add("jax")
        await failed(made, ["a"], 1)
        assert made.blocked is not None
        await made.close()

    check(test)


def test_a_bad_bundle_leaves_the_old_one_serving(settings, other_bundle: Path, caplog):
    async def test() -> None:
        seen = metrics.Metrics()
        made = pool.Pool(settings, seen)
        await made.start()
        old = made.bundle
        (other_bundle / "model.cpu.tflite").write_bytes(b"\0")
        for model in (str(other_bundle), "/nowhere/at/all"):
            with pytest.raises(problems.Problem, match="model-refused"):
                await made.reload(model)
        assert made.bundle is old
        assert len((await made.run("embed_text", embed, ["a"])).values) == 1
        assert sample(seen, "mmllm_reloads_total", result="failed") == 2
        await made.close()

    check(test)


def test_one_reload_at_a_time(settings, other_bundle: Path):
    async def test() -> None:
        made = pool.Pool(settings, metrics.Metrics())
        await made.start()
        both = await asyncio.gather(
            made.reload(str(other_bundle)), made.reload("nano"), return_exceptions=True
        )
        assert isinstance(both[1], problems.Problem)
        assert both[1].code == "reload-running"
        assert made.bundle is both[0]
        await made.close()

    check(test)


def test_a_start_fails_with_what_is_wrong(make_settings):
    async def test() -> None:
        made = pool.Pool(make_settings(model="/nowhere"), metrics.Metrics())
        with pytest.raises(FileNotFoundError, match="no model"):
            await made.start()
        faults = Faults()
        faults.unmakeable.add("litert")
        with pytest.raises(RuntimeError, match="no such engine"):
            await pool.Pool(make_settings(), metrics.Metrics(), faults.maker).start()

    check(test)


def test_closing_does_not_wait_for_a_fallback_on_its_way(make_settings):
    async def test() -> None:
        settings = make_settings(breaker_failures=1, breaker_open_s=60.0, engine_threads=1)
        faults = Faults()
        made = await started(settings, metrics.Metrics(), faults)
        faults.raising.add("litert")
        await failed(made, ["a"], 1)
        loading = made.serving().loading
        assert loading is not None
        await made.close()
        assert loading.done()

    check(test)


def test_closing_leaves_a_batch_that_does_not_end(make_settings, monkeypatch, caplog):
    async def test() -> None:
        monkeypatch.setattr(pool, "JOIN_S", 0.01)
        settings = make_settings(engine_timeout_s=0.1, engine_threads=1)
        faults = Faults()
        made = await started(settings, metrics.Metrics(), faults)
        version = made.serving()
        version.users += 1  # as a batch that is never done
        await made.close()
        assert "batches still run" in caplog.text
        await until(lambda: version.chosen.workers.alive == 0)

    check(test)


def test_a_reload_that_ends_after_the_close_is_undone(settings, other_bundle: Path):
    async def test() -> None:
        made = pool.Pool(settings, metrics.Metrics())
        await made.start()
        reload = asyncio.create_task(made.reload(str(other_bundle)))
        await until(made._reloading.locked)
        await made.close()
        with pytest.raises(problems.Problem, match="draining"):
            await reload
        assert made._current is None

    check(test)


@pytest.mark.slow
def test_the_real_fallback_answers_alike(make_settings, nano):
    async def test() -> None:
        settings = make_settings(breaker_failures=1, breaker_open_s=600.0, engine_threads=1)
        made = pool.Pool(settings, metrics.Metrics())
        await made.start()

        def fails(model: Any, items: list[Any]) -> list[Any]:
            raise RuntimeError

        await asyncio.gather(made.run("embed_text", fails, ["a"]), return_exceptions=True)
        await until(lambda: made.serving().fallback, 120.0)
        ran = await made.run("embed_text", embed, ["a cat"])
        assert ran.engine == "jax"
        assert float(ran.values[0] @ nano.embed_text("a cat")) > 0.99
        await made.close()

    asyncio.run(asyncio.wait_for(test(), 180.0))
