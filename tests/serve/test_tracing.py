"""Spans where a collector is configured, and no wait for one that is slow or gone."""

import asyncio
import socket
import threading
from collections.abc import Iterator

import fastapi
import httpx
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mmllm.serve import settings as settings_lib
from mmllm.serve import tracing

SETTINGS = settings_lib.Settings()


@pytest.fixture(autouse=True)
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in tracing.ENDPOINT_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    yield
    tracing.close()


def spans(exporter: InMemorySpanExporter) -> dict:
    tracing._active.provider.force_flush()
    return {span.name: span for span in exporter.get_finished_spans()}


def test_without_a_collector_nothing_is_made():
    assert tracing.configure(SETTINGS) is None
    with tracing.span("decode") as span:
        assert span is None
    assert tracing.add_ids(None, "info", {"event": "x"}) == {"event": "x"}


def test_a_stage_is_a_child_of_the_span_around_it():
    exporter = InMemorySpanExporter()
    tracing.configure(SETTINGS, exporter)
    with tracing.span("total", task="caption"), tracing.span("engine", rows=8):
        line = tracing.add_ids(None, "info", {})
    found = spans(exporter)
    assert found["engine"].parent.span_id == found["total"].context.span_id
    assert found["engine"].attributes == {"rows": 8}
    assert found["total"].resource.attributes["service.name"] == "mmllm"
    assert line["span_id"] == f"{found['engine'].context.span_id:016x}"


def test_a_failed_stage_tells_the_type_of_its_error_and_not_its_message():
    exporter = InMemorySpanExporter()
    tracing.configure(SETTINGS, exporter)

    def fail() -> None:
        with tracing.span("decode"):
            raise ValueError("a private question")

    with pytest.raises(ValueError, match="private"):
        fail()
    span = spans(exporter)["decode"]
    assert span.status.description == "ValueError"
    assert "private" not in span.to_json()


def test_a_long_attribute_is_cut():
    exporter = InMemorySpanExporter()
    tracing.configure(SETTINGS, exporter)
    with tracing.span("decode", format="x" * 10_000):
        pass
    assert len(spans(exporter)["decode"].attributes["format"]) == tracing.MAX_ATTRIBUTE


def test_fastapi_makes_the_span_of_the_request():
    exporter = InMemorySpanExporter()
    tracing.configure(SETTINGS, exporter)
    app = fastapi.FastAPI(telemetry=tracing.telemetry())

    @app.get("/items/{name}")
    async def item(name: str) -> str:
        with tracing.span("engine"):
            return name

    async def ask() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.get("/items/a")).status_code == 200

    asyncio.run(ask())
    found = spans(exporter)
    assert "GET /items/{name}" in found
    assert found["engine"].context.trace_id == found["GET /items/{name}"].context.trace_id


def test_a_collector_that_is_gone_costs_spans_only(monkeypatch):
    monkeypatch.setattr(tracing, "CLOSE_S", 0.1)
    monkeypatch.setattr(tracing, "SEND_S", 0.2)
    with socket.socket() as taken:  # bound, not listening: refuses
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert tracing.configure(settings_lib.Settings(otlp_endpoint=endpoint)) is not None
        for _ in range(2 * tracing.QUEUE_SPANS):  # more than the queue holds
            with tracing.span("decode"):
                pass
        tracing.close()


def test_nothing_waits_for_a_collector_that_hangs(monkeypatch):
    monkeypatch.setattr(tracing, "CLOSE_S", 0.1)
    answered = threading.Event()

    class Hanging(InMemorySpanExporter):
        def export(self, spans):
            answered.wait(20)
            return super().export(spans)

    tracing.configure(SETTINGS, Hanging())
    for _ in range(2 * tracing.QUEUE_SPANS):
        with tracing.span("decode"):
            pass
    tracing.close()
    assert not answered.is_set()  # all of the above went on without an answer
    answered.set()


def test_spans_reach_a_collector():
    """A socket in the collector's place sees an OTLP request on the right path."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)

        def collect() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(10)
                seen.append(connection.recv(65_536))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=collect)
        thread.start()
        port = server.getsockname()[1]
        tracing.configure(settings_lib.Settings(otlp_endpoint=f"http://127.0.0.1:{port}/"))
        with tracing.span("decode"):
            pass
        tracing.close()
        thread.join(10)
    assert seen
    assert seen[0].startswith(b"POST /v1/traces HTTP/1.1\r\n")
