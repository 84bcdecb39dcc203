"""An outage of Redis costs one short wait, is told once, and ends by itself."""

import asyncio

import pytest
import redis.exceptions
import structlog.testing

from mmllm.serve.guard import redis_breaker


class Redis:
    """Answers, fails or hangs."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.calls = 0

    async def answer(self) -> str:
        self.calls += 1
        if isinstance(self.error, TimeoutError):
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return "PONG"


@pytest.mark.parametrize(
    "error",
    [redis.exceptions.ConnectionError("redis://:secret@host"), OSError(), TimeoutError()],
    ids=["refused", "network", "hangs"],
)
def test_an_outage_costs_one_wait_is_told_once_and_ends(monkeypatch, error):
    monkeypatch.setattr(redis_breaker, "TIMEOUT_S", 0.01)
    failures: list[int] = []
    server, guard = Redis(), redis_breaker.RedisBreaker("the cache", lambda: failures.append(1))

    async def work() -> None:
        assert await guard.call(server.answer) == "PONG"
        server.error = error
        for _ in range(3):
            assert await guard.call(server.answer) is None
        assert (server.calls, len(failures)) == (2, 1)
        monkeypatch.setattr(guard, "_paused_until", 0.0)
        assert await guard.call(server.answer) is None  # still down: not told again
        server.error = None
        assert await guard.call(server.answer) is None
        monkeypatch.setattr(guard, "_paused_until", 0.0)
        assert await guard.call(server.answer) == "PONG"

    with structlog.testing.capture_logs() as told:
        asyncio.run(work())
    assert [line["log_level"] for line in told] == ["warning", "info"]
    assert "the cache goes on without Redis" in told[0]["event"]
    assert "secret" not in str(told)
    assert len(failures) == 2


def test_what_is_no_outage_is_raised():
    async def wrong() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        asyncio.run(redis_breaker.RedisBreaker("the cache", lambda: None).call(wrong))
