import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from mmllm.serve import metrics
from mmllm.serve.api import app as app_lib
from mmllm.serve.engine import service
from tests.serve import engines, web

TOKEN = "a token of the length that is asked for"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("probes")
    with web.serving(folder, metrics_token=TOKEN, anonymous_scopes=()) as client:
        yield client


def test_probes_and_metrics_need_no_key_and_no_known_host(client: TestClient):
    for path in ("live", "ready", "startup"):
        answer = client.get(f"/healthz/{path}", headers={"Host": "10.0.0.7:8000"})
        assert (answer.status_code, answer.json()) == (200, {"status": "ok", "reasons": []})
    assert client.get("/v1/info").status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
def test_metrics_are_shown_to_who_has_their_token(client: TestClient, scheme: str):
    answer = client.get("/metrics", headers={"Authorization": f"{scheme} {TOKEN}"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "mmllm_request_seconds_bucket" in answer.text


@pytest.mark.parametrize(
    "given",
    [
        *(None, "", "Bearer", "Bearer ", f"Bearer {TOKEN}x", "Bearer ä", TOKEN[:-1]),
        *(TOKEN, f" {TOKEN}", f"Basic {TOKEN}", f"Bearer Bearer {TOKEN}"),
    ],
)
def test_metrics_are_not_shown_to_others(client: TestClient, given: str | None):
    headers = {} if given is None else {"Authorization": given.encode()}
    answer = client.get("/metrics", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


def test_metrics_may_be_off(settings):
    off = settings.model_copy(update={"metrics": False})
    client = TestClient(app_lib.create_app(off, service.Service(off, metrics.Metrics())), web.HOST)
    assert client.get("/metrics").status_code == 404


def test_before_it_is_warm_the_service_lives_and_is_not_ready(settings):
    made = service.Service(settings, metrics.Metrics())
    client = TestClient(app_lib.create_app(settings, made), web.HOST)  # its life has not begun
    assert client.get("/healthz/live").status_code == 200
    for path in ("ready", "startup"):
        answer = client.get(f"/healthz/{path}")
        assert answer.status_code == 503
        assert answer.json()["reasons"] == ["the model is not warm yet"]


def test_a_draining_service_is_not_ready_and_still_answers(settings, picture_bytes: bytes):
    made = service.Service(settings, metrics.Metrics())
    with TestClient(app_lib.create_app(settings, made), web.HOST) as client:
        made.health.drain()
        assert client.get("/healthz/ready").json()["reasons"] == ["draining"]
        assert client.get("/healthz/live").status_code == 200
        assert client.post("/v1/caption", files={"image": picture_bytes}).status_code == 200


def test_probes_answer_while_every_engine_thread_hangs(tmp_path: Path, picture_bytes: bytes):
    faults = engines.Faults()
    with web.serving(tmp_path, faults.maker, engine_threads=1) as client:
        faults.hanging.add("litert")
        thread = threading.Thread(
            target=client.post, args=("/v1/caption",), kwargs={"files": {"image": picture_bytes}}
        )
        thread.start()
        try:
            assert client.get("/healthz/live").status_code == 200
        finally:
            faults.release.set()
            thread.join(engines.BOUND_S)
