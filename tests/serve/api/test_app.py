import asyncio
from pathlib import Path
from typing import Any

import pytest
import structlog
from starlette.testclient import TestClient

from mmllm.serve import logs, metrics
from mmllm.serve.api import app as app_lib
from mmllm.serve.engine import service
from tests.serve import engines, waiting, web


def test_alone_it_takes_settings_from_the_environment_and_sets_up_logs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("MMLLM_TRUSTED_HOSTS", "test")
    monkeypatch.setenv("MMLLM_DOCS", "false")
    monkeypatch.setenv("MMLLM_LOG_FILE", str(tmp_path / "log"))
    try:
        client = TestClient(app_lib.create_app(), web.HOST)
        assert client.get("/docs").status_code == 404
    finally:
        logs.close()
        structlog.reset_defaults()
    assert '"status": 404' in (tmp_path / "log").read_text(encoding="utf-8")


def test_every_answer_has_an_id_and_security_headers(tmp_path: Path):
    with web.serving(tmp_path) as client:
        answers = [client.get(path) for path in ("/", "/v1/info", "/nothing", "/docs")]
    for headers in [answer.headers for answer in answers]:
        assert len(headers["x-request-id"]) == 32
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_an_unknown_host_a_wrong_method_and_a_large_body_are_problems(tmp_path: Path):
    with web.serving(tmp_path, max_body_bytes=2000) as client:
        answers = [
            client.get("/v1/info", headers={"Host": "evil.example"}),
            client.get("/v1/caption"),
            client.post("/v1/caption", content=bytes(3000)),
            client.post("/v1/caption/", json={}),
            client.put("/v1/index/a"),
        ]
    codes = [answer.json()["code"] for answer in answers]
    assert codes == [
        "host-unknown",
        "method-not-allowed",
        "body-too-large",
        "not-found",
        "method-not-allowed",
    ]
    assert answers[1].headers["allow"] == "POST"
    assert answers[4].headers["allow"] == "DELETE, POST"
    assert all(a.headers["content-type"] == "application/problem+json" for a in answers)


def test_an_engine_that_breaks_is_an_answer_without_its_words(tmp_path: Path, picture_bytes: bytes):
    faults = engines.Faults()
    with web.serving(tmp_path, faults.maker) as client:
        faults.raising.update(("litert", "jax"))
        answer = client.post("/v1/caption", files={"image": picture_bytes})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "broken" not in answer.text
    assert "Traceback" not in answer.text


def test_a_fault_of_the_code_is_an_internal_error_with_an_id(
    settings, picture_bytes: bytes, monkeypatch: pytest.MonkeyPatch
):
    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("/home/secret")

    made = service.Service(settings, metrics.Metrics())
    monkeypatch.setattr(made, "caption", fail)
    app = app_lib.create_app(settings, made)
    with (
        structlog.testing.capture_logs() as lines,
        TestClient(app, web.HOST, raise_server_exceptions=False) as client,
    ):
        answer = client.post("/v1/caption", files={"image": picture_bytes})
    assert [line["event"] for line in lines].count("a request failed") == 1
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "secret" not in answer.text


def test_a_service_that_cannot_start_ends_the_start(tmp_path: Path):
    with (
        pytest.raises(FileNotFoundError, match="no model"),
        web.serving(tmp_path, model=str(tmp_path / "none")),
    ):
        pass


def test_who_hangs_up_is_not_worked_for(settings, picture_bytes: bytes):
    async def run() -> tuple[int, list[dict], float]:
        faults, seen = engines.Faults(), metrics.Metrics()
        made = service.Service(settings, seen, faults.maker)
        app = app_lib.create_app(settings, made)
        await made.start()
        try:
            faults.hanging.add("litert")
            before = faults.calls.get("litert", 0)
            left, sent = asyncio.Event(), []
            body = iter(multipart(picture_bytes))

            async def receive() -> dict:
                if (message := next(body, None)) is not None:
                    return message
                await left.wait()
                return {"type": "http.disconnect"}

            async def send(message: dict) -> None:
                sent.append(message)

            call = asyncio.create_task(
                app(web.scope("/v1/caption", "multipart/form-data; boundary=b"), receive, send)
            )
            await waiting.until(lambda: faults.calls.get("litert", 0) > before)
            left.set()
            await asyncio.wait_for(call, waiting.BOUND_S)
            ended = seen.registry.get_sample_value("mmllm_requests_in_flight", {})
            return sent[0]["status"], sent, ended
        finally:
            faults.release.set()
            await made.close()

    status, _, in_flight = asyncio.run(run())
    assert status == 499
    assert in_flight == 0


def multipart(picture: bytes) -> list[dict]:
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    body = head + picture + b"\r\n--b--\r\n"
    return [{"type": "http.request", "body": body, "more_body": False}]
