"""Rows of the load experiment: ratios, the sustainable rate, percentiles, a memory's slope."""

import asyncio

import pytest

from experiments.serving import load_generator, soak, speed


def row(rate: float, p99: float, **statuses: int) -> dict:
    return {
        "task": "caption",
        "rate": rate,
        "p50_ms": 20.0,
        "p99_ms": p99,
        "statuses": statuses or {"200": 10},
    }


def test_the_sustainable_rate_is_the_last_before_the_first_that_fails():
    rows = [row(10.0, 50.0), row(20.0, 199.0), row(30.0, 201.0), row(40.0, 100.0)]
    best = speed.sustainable(rows, "caption")
    assert best is not None
    assert (best["rate"], best["p99_ms"]) == (20.0, 199.0)


def test_a_rate_with_a_refusal_is_not_sustained():
    assert speed.sustainable([row(10.0, 50.0, **{"200": 9, "503": 1})], "caption") is None


def test_ratios_are_of_the_same_task_and_clients():
    def closed(server: str, rate: float, p99: float | None) -> dict:
        return {
            "server": server,
            "task": "caption",
            "clients": 8,
            "requests_per_second": rate,
            "p99_ms": p99,
        }

    rows = [closed("mmllm serve", 60.0, 100.0), closed("other", 40.0, 200.0)]
    (ratio,) = speed.ratios([*rows, closed("silent", 0.0, None)])
    assert ratio["over"] == "other"
    assert (ratio["throughput"], ratio["p99"]) == (1.5, 0.5)


def test_a_summary_counts_good_answers_alone():
    outcomes = load_generator.Outcomes()
    for seconds in (0.1, 0.2, 0.3):
        outcomes.add("200", seconds)
    outcomes.add("503", 9.0)
    outcomes.add("200", 0.2, right=False)
    summary = load_generator.summary(outcomes, 2.0)
    assert summary["requests_per_second"] == 2.0
    assert summary["statuses"] == {"200": 4, "503": 1}
    assert summary["p50_ms"] == pytest.approx(200.0)
    assert summary["wrong"] == 1


def test_without_a_good_answer_percentiles_are_missing():
    outcomes = load_generator.Outcomes()
    outcomes.add("hung", 30.0)
    assert load_generator.summary(outcomes, 1.0)["p99_ms"] is None


def test_pictures_differ_and_a_request_says_how_long_it_is():
    first, second = load_generator.pictures(2)
    assert first != second
    head, _, body = load_generator.request("http://a:1", "/v1/caption", first).partition(
        b"\r\n\r\n"
    )
    assert f"Content-Length: {len(body)}".encode() in head
    assert first in body


def test_the_slope_of_memory_leaves_out_the_warm_up():
    samples = [(float(t), 100.0 + 50 * (t < 4)) for t in range(20)]
    assert soak.slope(samples) == pytest.approx(0.0, abs=1e-6)
    rising = [(float(t), 100.0 + t / 3600) for t in range(20)]
    assert soak.slope(rising) == pytest.approx(1.0)


def test_the_soak_asks_for_each_task_for_streams_and_for_writes():
    sent = soak.requests("http://127.0.0.1:1", 2 * soak.TURNS)
    lines = {request.split(b" ", 2)[1].decode() for request in sent}
    tasks = {"caption", "ocr", "vqa", "embed/image", "embed/text", "search", "chat/completions"}
    assert lines == {f"/v1/{task}" for task in (*tasks, "index/picture-0", "index/picture-1")}
    assert sum(b'"stream": true' in request for request in sent) == 1


def test_a_body_that_comes_in_chunks_is_put_together():
    async def read() -> tuple[bytes, bytes]:
        reader = asyncio.StreamReader()
        reader.feed_data(b"3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\nHTTP/1.1")
        reader.feed_eof()
        return await load_generator.chunks(reader), await reader.read()

    assert asyncio.run(read()) == (b"abc0123456789abcdef", b"HTTP/1.1")


def test_a_python_without_litserve_is_known_before_anything_is_measured(tmp_path):
    assert not speed.has_litserve(str(tmp_path / "python"))
    assert not speed.has_litserve("false")
    assert speed.has_litserve("true")
