"""TaskRunner: deadlines, what is kept, and errors that tell nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mmllm.serve import metrics, problems
from mmllm.serve.engine import bundles, cache, queues, runner
from tests.serve.waiting import BOUND_S


@pytest.fixture(scope="module")
def bundle() -> bundles.Bundle:
    return bundles.open_bundle("nano")


def check(
    settings: Any, test: Callable[[runner.TaskRunner], Awaitable[None]], max_s: float = BOUND_S
) -> metrics.Metrics:
    seen = metrics.Metrics()

    async def run() -> None:
        results = cache.ResultCache(settings, seen)
        await test(runner.TaskRunner(results, seen, max_s))
        await results.close()

    asyncio.run(asyncio.wait_for(run(), BOUND_S))
    return seen


def worker(ran: queues.TaskResult, answer: Any = ("a cat", 0.5)) -> Any:
    async def work(deadline: float) -> runner.Outcome:
        return runner.Outcome(list(answer), ran, 0.25)

    return work


def ran_on(bundle: bundles.Bundle, degraded: bool = False) -> queues.TaskResult:
    return queues.TaskResult(None, bundle, "litert", degraded, 0.125, 0.5)


def test_an_answer_says_how_it_was_made(settings, bundle):
    async def test(made: runner.TaskRunner) -> None:
        answer, how = await made.run("caption", bundle, [b"x"], {}, worker(ran_on(bundle)), None)
        assert answer == ["a cat", 0.5]
        assert (how.model, how.engine, how.cached) == ("nano", "litert", False)
        assert how.timings[:3] == (0.25, 0.125, 0.5)
        answer, how = await made.run("caption", bundle, [b"x"], {}, worker(ran_on(bundle)), None)
        assert (answer, how.cached, how.timings[:3]) == (["a cat", 0.5], True, (0.0, 0.0, 0.0))

    seen = check(settings, test)
    labels = {"task": "caption", "stage": "total"}
    assert seen.registry.get_sample_value("mmllm_stage_seconds_count", labels) == 2
    assert seen.registry.get_sample_value("mmllm_tokens_generated_total", {"task": "caption"})


def test_inputs_do_not_run_into_one_another(settings, bundle):
    async def test(made: runner.TaskRunner) -> None:
        for inputs in ([b"ab", b"c"], [b"a", b"bc"], [b"abc"], [bytes(runner.SMALL_BYTES)]):
            _, how = await made.run("ocr", bundle, inputs, {}, worker(ran_on(bundle)), None)
            assert not how.cached

    check(settings, test)


def test_what_the_fallback_or_another_model_made_is_not_kept(settings, bundle):
    other = bundle._replace(fingerprint="0" * 64)

    async def test(made: runner.TaskRunner) -> None:
        for ran in (ran_on(bundle, degraded=True), ran_on(other)):
            for _ in range(2):
                _, how = await made.run("ocr", bundle, [b"x"], {}, worker(ran), None)
                assert not how.cached
                assert how.fingerprint == ran.bundle.fingerprint

    check(settings, test)


def test_the_shorter_deadline_counts(settings, bundle):
    async def forever(deadline: float) -> runner.Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    async def test(made: runner.TaskRunner) -> None:
        for seconds in (None, 0.01, -5.0):
            with pytest.raises(problems.Problem, match="deadline"):
                await made.run("ocr", bundle, [b"x"], {}, forever, seconds)

    check(settings, test, max_s=0.02)


def test_only_problems_come_out_and_the_cause_is_in_the_log(settings, bundle, caplog):
    async def test(made: runner.TaskRunner) -> None:
        for error in (OSError("/secret/path"), TimeoutError("/secret/path")):

            async def fails(deadline: float, error: Exception = error) -> runner.Outcome:
                raise error

            with pytest.raises(problems.Problem) as raised:
                await made.run("ocr", bundle, [b"x"], {}, fails, None)
            assert raised.value.code == "internal"
            assert "secret" not in str(raised.value)
        with pytest.raises(problems.Problem, match="queue-full"), runner.masked("ocr"):
            raise problems.Problem("queue-full")

    check(settings, test)
    assert caplog.text.count("ocr failed") == 2
