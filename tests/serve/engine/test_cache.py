"""The result cache: what is kept, who shares a run, and a Redis that comes and goes."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import fakeredis
import pytest
import redis.exceptions

from mmllm.serve import metrics, problems
from mmllm.serve.engine import cache
from mmllm.serve.guard import redis_breaker
from tests.serve.waiting import BOUND_S, until


def check(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), BOUND_S))


class Maker:
    """Makes an answer, counts how often, and waits while its gate is shut."""

    def __init__(self, answer: Any = "a cat") -> None:
        self.calls = self.ended = 0
        self.answer = answer
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Any:
        self.calls += 1
        try:
            await self.gate.wait()
        finally:
            self.ended += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def results(settings) -> cache.ResultCache:
    return cache.ResultCache(settings, metrics.Metrics())


def counted(seen: metrics.Metrics, result: str) -> float:
    labels = {"task": "caption", "result": result}
    return seen.registry.get_sample_value("mmllm_cache_total", labels) or 0.0


def test_keys_differ_where_anything_differs():
    one = cache.key_of("caption", "f", "d", language="en", beam=1)
    assert one == cache.key_of("caption", "f", "d", beam=1, language="en")
    others = {
        cache.key_of("vqa", "f", "d", language="en", beam=1),
        cache.key_of("caption", "g", "d", language="en", beam=1),
        cache.key_of("caption", "f", "e", language="en", beam=1),
        cache.key_of("caption", "f", "d", language="de", beam=1),
        cache.key_of("caption", "f", "d", language="en", beam=2),
    }
    assert len({one, *others}) == 6


def test_an_answer_is_made_once_and_then_kept(settings):
    async def test() -> None:
        seen = metrics.Metrics()
        results, make = cache.ResultCache(settings, seen), Maker()
        assert await results.get_or_make("caption", "k", make) == ("a cat", False)
        assert await results.get_or_make("caption", "k", make) == ("a cat", True)
        assert make.calls == 1
        assert counted(seen, "hit") == counted(seen, "miss") == 1
        await results.close()

    check(test)


def test_the_least_recently_used_goes_first_and_each_after_its_time(make_settings, monkeypatch):
    async def test() -> None:
        results = cache.ResultCache(make_settings(cache_items=2), metrics.Metrics())
        make = Maker()
        for key in ("a", "b", "a", "c"):  # b was not used again
            await results.get_or_make("caption", key, make)
        assert make.calls == 3
        assert (await results.get_or_make("caption", "a", make))[1]
        assert not (await results.get_or_make("caption", "b", make))[1]
        short = cache.LocalStore(2, 1e-9)
        await short.put("a", b"1")
        assert await short.get("a") is None

    check(test)


def test_without_room_equal_requests_still_share_a_run(make_settings):
    async def test() -> None:
        results = cache.ResultCache(make_settings(cache_items=0), metrics.Metrics())
        make = Maker()
        both = await asyncio.gather(*(results.get_or_make("caption", "k", make) for _ in range(2)))
        assert both == [("a cat", False), ("a cat", True)]
        assert await results.get_or_make("caption", "k", make) == ("a cat", False)
        assert make.calls == 2

    check(test)


def test_what_is_too_large_or_not_to_be_kept_is_made_again(results):
    async def test() -> None:
        for answer, keep in (("x" * cache.MAX_VALUE_BYTES, True), ("small", False)):
            make = Maker(answer)
            for _ in range(2):
                await results.get_or_make("caption", answer, make, lambda value, keep=keep: keep)
            assert make.calls == 2

    check(test)


def test_an_error_reaches_all_who_wait_and_is_not_kept(results):
    async def test() -> None:
        make = Maker(ValueError("bad"))
        both = await asyncio.gather(
            *(results.get_or_make("caption", "k", make) for _ in range(2)), return_exceptions=True
        )
        assert [type(error) for error in both] == [ValueError, ValueError]
        assert make.calls == 1
        make.answer = "good"
        assert await results.get_or_make("caption", "k", make) == ("good", False)

    check(test)


def test_one_who_leaves_does_not_end_the_work_of_the_others(results):
    async def test() -> None:
        make = Maker()
        make.gate.clear()
        first = asyncio.create_task(results.get_or_make("caption", "k", make))
        second = asyncio.create_task(results.get_or_make("caption", "k", make))
        await until(lambda: make.calls)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        make.gate.set()
        assert await second == ("a cat", True)
        assert make.calls == 1

    check(test)


def test_the_last_who_leaves_ends_it_and_the_next_begins_anew(results):
    async def test() -> None:
        make = Maker()
        make.gate.clear()
        tasks = [asyncio.create_task(results.get_or_make("caption", "k", make)) for _ in range(2)]
        await until(lambda: make.calls)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: make.ended)
        make.gate.set()
        assert await results.get_or_make("caption", "k", make) == ("a cat", False)
        assert make.calls == 2

    check(test)


def test_the_first_ones_deadline_is_not_the_others(results):
    async def test() -> None:
        late = Maker(problems.Problem("deadline"))
        late.gate.clear()
        first = asyncio.create_task(results.get_or_make("caption", "k", late))
        await until(lambda: late.calls)
        second = asyncio.create_task(results.get_or_make("caption", "k", Maker("in time")))
        await asyncio.sleep(0)
        late.gate.set()
        with pytest.raises(problems.Problem, match="deadline"):
            await first
        assert await second == ("in time", False)

    check(test)


def test_closing_tells_those_who_wait(results):
    async def test() -> None:
        make = Maker()
        make.gate.clear()
        waiting = asyncio.create_task(results.get_or_make("caption", "k", make))
        await until(lambda: make.calls)
        await results.close()
        with pytest.raises(problems.Problem, match="draining"):
            await waiting

    check(test)


def with_redis(settings, seen: metrics.Metrics, server: fakeredis.FakeServer) -> cache.ResultCache:
    client = fakeredis.FakeAsyncRedis(server=server)
    store = cache.RedisStore(client, 60.0, lambda: seen.store_error("cache"))
    return cache.ResultCache(settings, seen, store)


def test_processes_share_what_redis_keeps(settings):
    async def test() -> None:
        server, seen, make = fakeredis.FakeServer(), metrics.Metrics(), Maker(["a", 0.5])
        one, other = (with_redis(settings, seen, server) for _ in range(2))
        assert await one.get_or_make("caption", "k", make) == (["a", 0.5], False)
        assert await other.get_or_make("caption", "k", make) == (["a", 0.5], True)
        client = fakeredis.FakeAsyncRedis(server=server)
        assert json.loads(await client.get(cache.PREFIX + "k")) == ["a", 0.5]
        assert 0 < await client.pttl(cache.PREFIX + "k") <= 60_000
        await asyncio.gather(one.close(), other.close(), client.aclose())

    check(test)


def test_what_is_no_json_in_redis_is_made_again(settings):
    async def test() -> None:
        server, seen = fakeredis.FakeServer(), metrics.Metrics()
        client = fakeredis.FakeAsyncRedis(server=server)
        await client.set(cache.PREFIX + "k", b"\x80\x04cos\nsystem")
        results = with_redis(settings, seen, server)
        assert await results.get_or_make("caption", "k", Maker()) == ("a cat", False)
        assert counted(seen, "error") == 1
        assert await results.get_or_make("caption", "k", Maker()) == ("a cat", True)
        await asyncio.gather(results.close(), client.aclose())

    check(test)


def test_redis_that_is_down_fails_nothing_and_is_used_again(settings):
    async def test() -> None:
        server, seen, make = fakeredis.FakeServer(), metrics.Metrics(), Maker()
        results = with_redis(settings, seen, server)
        server.connected = False
        for _ in range(3):  # one look, then it is left out for a while
            assert await results.get_or_make("caption", "k", make) == ("a cat", False)
        errors = seen.registry.get_sample_value("mmllm_store_errors_total", {"store": "cache"})
        assert errors == 1
        server.connected = True
        results._store._redis_breaker._paused_until = 0.0  # type: ignore[union-attr]
        await results.get_or_make("caption", "k", make)
        assert await results.get_or_make("caption", "k", make) == ("a cat", True)
        await results.close()

    check(test)


def test_redis_that_hangs_is_not_waited_for(settings, monkeypatch):
    class Hanging:
        async def get(self, key: str) -> bytes:
            await asyncio.Event().wait()
            return b""

        async def aclose(self) -> None:
            raise redis.exceptions.ConnectionError

    async def test() -> None:
        monkeypatch.setattr(redis_breaker, "TIMEOUT_S", 0.01)
        seen = metrics.Metrics()
        store = cache.RedisStore(Hanging(), 60.0, lambda: seen.store_error("cache"))
        assert await store.get("k") is None
        await store.close()

    check(test)


def test_the_settings_choose_the_store(make_settings):
    async def test() -> None:
        url = "redis://:secret@127.0.0.1:1/0"
        results = cache.ResultCache(make_settings(redis_url=url), metrics.Metrics())
        assert isinstance(results._store, cache.RedisStore)
        assert await results.get_or_make("caption", "k", Maker()) == ("a cat", False)  # none there
        await results.close()

    check(test)
