"""Health: what each probe is told, and what makes a process ask for its replacement."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mmllm.serve import metrics
from mmllm.serve.engine import health as health_lib
from tests.serve.waiting import BOUND_S, until


def check(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), BOUND_S))


@pytest.fixture
def seen() -> metrics.Metrics:
    return metrics.Metrics()


def test_a_process_is_ready_once_its_model_is_warm_until_it_drains(settings, seen):
    health = health_lib.Health(settings, seen)
    assert health.live().ok
    assert not health.startup().ok
    assert health.ready() == health_lib.Report(False, ("the model is not warm yet",))
    health.started()
    assert health.startup() == health.ready() == health_lib.Report(True)
    assert seen.registry.get_sample_value("mmllm_ready_processes") == 1
    health.drain()
    assert health.ready() == health_lib.Report(False, ("draining",))
    assert health.live().ok  # a drain is no reason for a restart
    assert not health.must_exit
    assert seen.registry.get_sample_value("mmllm_ready_processes") == 0
    assert seen.registry.get_sample_value("mmllm_draining_processes") == 1


def test_a_check_is_asked_by_each_probe_and_may_pass(settings, seen):
    health = health_lib.Health(settings, seen)
    wrong: list[str] = ["the queue stands still"]
    health.watch(lambda: wrong[0] if wrong else None)
    health.started()
    assert health.ready() == health_lib.Report(False, ("the queue stands still",))
    assert health.live().ok
    wrong.clear()
    assert health.ready().ok


def test_what_is_wrong_for_good_asks_for_a_replacement_and_stays(settings, seen):
    health = health_lib.Health(settings, seen)
    wrong: list[str] = []
    health.watch(lambda: wrong[0] if wrong else None, fatal=True)
    health.started()
    assert health.ready().ok
    wrong.append("threads hang")
    assert health.live() == health_lib.Report(False, ("threads hang",))
    assert health.must_exit
    wrong.clear()
    assert not health.live().ok
    assert not health.ready().ok


def test_too_much_memory_asks_for_a_drain_and_then_for_a_replacement(make_settings, seen):
    async def test() -> None:
        settings = make_settings(max_rss_mb=64, drain_s=5.0)  # this process has more
        health = health_lib.Health(settings, seen)
        health.start()
        health.started()
        await until(lambda: health.must_exit)
        (reason,) = health.ready().reasons  # no other server than ours looks at must_exit
        assert "more than max_rss_mb=64" in reason
        assert health.live().ok
        health._over_memory_since -= 5.1  # as long as a drain ago
        assert health.live() == health_lib.Report(False, (reason,))
        assert health.ready() == health_lib.Report(False, (reason,))
        await health.close()

    check(test)


def test_the_watch_finds_what_no_probe_asks_for(settings, seen):
    async def test() -> None:
        health = health_lib.Health(settings, seen)
        wrong: list[str] = []
        ticks: list[int] = []
        health.watch(lambda: wrong[0] if wrong else None, fatal=True)
        health.each_tick(lambda: ticks.append(1))
        health.start()
        health.started()
        await until(lambda: ticks)
        assert not health.must_exit
        wrong.append("threads hang")
        await until(lambda: health.must_exit)
        await health.close()

    check(test)


def test_the_watch_outlives_its_own_errors(settings, seen, caplog):
    async def test() -> None:
        health = health_lib.Health(settings, seen)
        ticks: list[int] = []

        def breaks() -> None:
            ticks.append(1)
            raise KeyError

        health.each_tick(breaks)
        health.start()
        await until(lambda: len(ticks) > 1)
        assert "the watch failed once" in caplog.text
        await health.close()

    check(test)


def test_a_loop_that_was_held_up_is_not_ready(settings, seen, monkeypatch):
    async def test() -> None:
        monkeypatch.setattr(health_lib, "MAX_LAG_S", -1.0)
        health = health_lib.Health(settings, seen)
        health.started()
        assert "held up" in health.ready().reasons[0]

    check(test)
