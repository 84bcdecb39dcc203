"""Rate limits: who is counted, what a refusal says, and that a lost Redis refuses nobody."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable

import fakeredis
import pytest
import structlog.testing
from prometheus_client import CollectorRegistry

from mmllm.serve import metrics, problems
from mmllm.serve import settings as settings_lib
from mmllm.serve.guard import auth, limits, redis_breaker

ALICE = auth.Caller("alice", frozenset(), "key")
BOB = auth.Caller("bob", frozenset(), "key")
NOBODY = auth.Caller("anonymous", frozenset(), "anonymous")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine is no lost Redis."""
    monkeypatch.setattr(redis_breaker, "TIMEOUT_S", 20.0)


class Counter:
    """A limiter and what it counted."""

    def __init__(self, client: object = None, **overrides) -> None:
        rates = {"rate_per_key": "3/hour", "rate_per_address": "5/hour"}
        settings = settings_lib.Settings(**rates | overrides)
        self.metrics = metrics.Metrics(CollectorRegistry())
        self.limiter = limits.Limiter(settings, self.metrics, client)

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"mmllm_{name}_total", labels) or 0

    async def passed(self, count: int, caller: auth.Caller | None, address: str | None) -> int:
        """How many of some requests pass."""
        passed = 0
        for _ in range(count):
            try:
                await self.limiter.hit(caller, address)
                passed += 1
            except problems.Problem as error:
                assert error.code == "rate-limited"  # noqa: PT017
        return passed


def run(counter: Counter, work: Callable[[], Awaitable[None]]) -> None:
    async def closing() -> None:
        try:
            await work()
        finally:
            await counter.limiter.close()

    asyncio.run(closing())


@pytest.fixture(params=["memory", "redis"])
def counter(request: pytest.FixtureRequest) -> Counter:
    client = fakeredis.FakeAsyncRedis() if request.param == "redis" else None
    return Counter(client)


def test_a_key_and_an_address_are_counted_apart(counter):
    async def work() -> None:
        assert await counter.passed(10, ALICE, "192.0.2.1") == 3  # and 10 of the address
        assert await counter.passed(10, BOB, "192.0.2.2") == 3
        assert await counter.passed(10, NOBODY, "192.0.2.3") == 5
        assert await counter.passed(1, BOB, "192.0.2.3") == 0

    run(counter, work)
    assert counter.value("rate_limited", by="address") > 0
    assert counter.value("rate_limited", by="key") > 0


def test_one_may_be_counted_without_the_other(counter):
    async def work() -> None:
        assert await counter.passed(10, None, "192.0.2.1") == 5
        assert await counter.passed(10, ALICE, None) == 3
        assert await counter.passed(10, NOBODY, None) == 10

    run(counter, work)


def test_one_customers_ipv6_addresses_are_counted_together(counter):
    async def work() -> None:
        passed = [await counter.passed(1, None, f"2001:db8::{i:x}") for i in range(8)]
        assert sum(passed) == 5
        assert await counter.passed(1, None, "2001:db8:0:1::1") == 1

    run(counter, work)


def test_what_is_left_and_until_when_is_told(counter):
    async def work() -> None:
        quota = await counter.limiter.hit(ALICE, "192.0.2.1")
        assert quota.headers["RateLimit-Limit"] == "3"  # the closest one
        assert quota.headers["RateLimit-Remaining"] == "2"
        assert 0 <= int(quota.headers["RateLimit-Reset"]) <= 7200
        await counter.passed(2, ALICE, "192.0.2.1")
        with pytest.raises(limits.RateLimited) as error:
            await counter.limiter.hit(ALICE, "192.0.2.1")
        assert error.value.quota.headers["RateLimit-Remaining"] == "0"
        assert 1 <= error.value.retry_after <= 7200

    run(counter, work)


def test_as_many_at_once_pass_as_one_after_the_other(counter):
    async def work() -> None:
        passed = await asyncio.gather(*(counter.passed(1, None, "192.0.2.1") for _ in range(40)))
        assert 1 <= sum(passed) <= 5  # the library errs on the strict side in a race

    run(counter, work)


def test_the_window_slides(monkeypatch):
    """After a window and a half, half of the earlier requests still count."""
    counter = Counter(rate_per_address="10/minute")
    start = 60 * (time.time() // 60 + 1)
    now = [start]
    monkeypatch.setattr(time, "time", lambda: now[0])

    async def work() -> None:
        assert await counter.passed(20, None, "192.0.2.1") == 10
        now[0] = start + 90
        assert await counter.passed(20, None, "192.0.2.1") == 5
        now[0] = start + 300
        assert await counter.passed(20, None, "192.0.2.1") == 10

    run(counter, work)


def test_without_redis_each_process_counts_and_nobody_is_refused_for_it(monkeypatch):
    server = fakeredis.FakeServer()
    counter = Counter(fakeredis.FakeAsyncRedis(server=server))

    async def work() -> None:
        assert await counter.passed(4, None, "192.0.2.1") == 4
        server.connected = False
        assert await counter.passed(10, None, "192.0.2.1") == 5  # of this process's own
        server.connected = True
        assert await counter.passed(1, None, "192.0.2.1") == 0  # it is left alone for a while
        monkeypatch.setattr(counter.limiter._redis_breaker, "_paused_until", 0.0)
        assert await counter.passed(10, None, "192.0.2.1") == 1  # what Redis counted before

    with structlog.testing.capture_logs() as told:
        run(counter, work)
    assert [line["log_level"] for line in told] == ["warning", "info"]  # once an outage
    assert counter.value("store_errors", store="limits") == 1


def test_a_redis_that_never_answers_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(redis_breaker, "TIMEOUT_S", 0.02)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        counter = Counter(redis_url=f"redis://user:s3cret@127.0.0.1:{port}/0")

        async def work() -> None:
            assert await counter.passed(10, None, "192.0.2.1") == 5

        with structlog.testing.capture_logs() as told:
            run(counter, work)
    assert "s3cret" not in str(told)
    assert counter.value("store_errors", store="limits") == 1


def test_old_counts_are_swept_and_the_library_does_not_at_each_request(monkeypatch):
    monkeypatch.setattr(limits, "SWEEP_S", 0.01)
    counter = Counter()
    memory = counter.limiter._memory

    async def work() -> None:
        for i in range(50):
            await counter.passed(1, None, f"192.0.2.{i}")
        assert len(memory.expirations) == 50
        assert memory.timer.get_coro().__name__ == "_sweep"
        for key in memory.expirations:
            memory.expirations[key] = 0.0
        await memory.timer

    run(counter, work)
    assert not memory.storage
    assert not memory.expirations
    assert not memory.locks


def test_too_many_addresses_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(limits, "MAX_KEYS", 100)
    counter = Counter()

    async def work() -> None:
        for i in range(1000):
            await counter.passed(1, None, f"2001:db8:0:{i:x}::1")

    run(counter, work)
    assert len(counter.limiter._memory.storage) <= 101


def test_a_flood_of_addresses_gives_nobody_a_new_start_who_began_lately(monkeypatch):
    monkeypatch.setattr(limits, "MAX_KEYS", 100)
    counter = Counter()

    async def work() -> None:
        for i in range(90):
            await counter.passed(1, None, f"2001:db8:0:{i:x}::1")
        assert await counter.passed(6, None, "192.0.2.1") == 5
        for i in range(20):
            await counter.passed(1, None, f"2001:db8:1:{i:x}::1")
        assert await counter.passed(1, None, "192.0.2.1") == 0
        assert await counter.passed(6, None, "2001:db8::1") == 5  # forgotten: it was the oldest

    with structlog.testing.capture_logs() as told:
        run(counter, work)
    assert {line["event"] for line in told} == {
        "too many addresses ask: the oldest counts are forgotten"
    }


@pytest.mark.parametrize(("workers", "passed"), [(1, 5), (2, 3), (4, 2), (100, 1)])
def test_each_of_several_processes_allows_its_share(workers, passed):
    counter = Counter(workers=workers)

    async def work() -> None:
        assert await counter.passed(10, None, "192.0.2.1") == passed
        quota = await counter.limiter.hit(ALICE, None)
        assert quota.limit == -(-3 // workers)

    run(counter, work)


def test_processes_that_share_redis_allow_the_whole_rate_between_them():
    counter = Counter(fakeredis.FakeAsyncRedis(), workers=4)

    async def work() -> None:
        assert await counter.passed(10, None, "192.0.2.1") == 5

    run(counter, work)
