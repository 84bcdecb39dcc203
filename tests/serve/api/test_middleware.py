"""What surrounds requests: ids, headers, one audit line without payload, no bare failure."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import fastapi
import httpx
import pytest
import structlog
from prometheus_client import CollectorRegistry
from starlette.responses import PlainTextResponse, StreamingResponse

from mmllm.serve import logs, metrics
from mmllm.serve import settings as settings_lib
from mmllm.serve.api import middleware
from mmllm.serve.guard import auth

SECRET = "s3cret-payload"


def application() -> fastapi.FastAPI:
    app = fastapi.FastAPI()

    @app.get("/items/{name}")
    async def item(name: str) -> str:
        return name

    @app.post("/echo")
    async def echo(request: fastapi.Request) -> str:
        structlog.get_logger("mmllm.inner").info("inner")
        return str(len(await request.body()))

    @app.get("/fails")
    async def fails() -> str:
        raise RuntimeError(f"/a/path {SECRET}")

    @app.get("/breaks-off")
    async def breaks_off() -> StreamingResponse:
        async def pieces():
            yield "half"
            raise RuntimeError(SECRET)

        return StreamingResponse(pieces())

    @app.get("/own")
    async def own() -> PlainTextResponse:
        headers = {"Content-Security-Policy": "own", "ETag": "x", "X-Frame-Options": "SAMEORIGIN"}
        return PlainTextResponse("own", headers=headers)

    @app.get("/healthz/live")
    @app.get("/metrics")
    async def probe(response: fastapi.Response) -> str:
        response.status_code = 503
        return "failing"

    @app.websocket("/socket")
    async def socket(websocket: fastapi.WebSocket) -> None:
        await websocket.accept()

    mounted = fastapi.FastAPI()

    @mounted.get("/{name}")
    async def file(name: str) -> str:
        return name

    app.mount("/files", mounted)
    app.mount("/raw", PlainTextResponse("raw"))
    return app


class Site:
    """An application with all that surrounds it, and what it logged and counted."""

    def __init__(self, folder: Path, app=None, **overrides) -> None:
        overrides.setdefault("trusted_hosts", ("test", "*.example.org", "[::1]"))
        self.settings = settings_lib.Settings(log_file=folder / "log", **overrides)
        self.metrics = metrics.Metrics(CollectorRegistry())
        self.app = middleware.wrap(app or application(), self.settings, self.metrics)

    def ask(self, method: str, path: str, peer: str = "203.0.113.5", **options) -> httpx.Response:
        async def asking() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=(peer, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        return asyncio.run(asyncio.wait_for(asking(), 30))

    def lines(self) -> list[dict]:
        logs.close()
        lines = map(json.loads, self.settings.log_file.read_text().splitlines())
        return [line for line in lines if line["logger"].startswith("mmllm")]  # not the client's

    def counted(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"mmllm_{name}", labels)


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., Site]:
    def make(app=None, **overrides) -> Site:
        made = Site(tmp_path, app, **overrides)
        logs.configure(made.settings)
        return made

    yield make
    logs.close()


def test_a_request_gets_an_id_of_its_own(site):
    here = site()
    ids = [here.ask("GET", "/items/a").headers["x-request-id"] for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(len(made) == 32 for made in ids)


@pytest.mark.parametrize(
    ("peer", "given", "kept"),
    [
        ("10.0.0.1", ["abc-1"], True),
        ("203.0.113.5", ["abc-1"], False),
        ("10.0.0.1", ["a b"], False),
        ("10.0.0.1", ["x" * 65], False),
        ("10.0.0.1", [""], False),
        ("10.0.0.1", ['"><script>'], False),
        ("10.0.0.1", ["abc-1", "abc-2"], False),
    ],
)
def test_an_id_is_kept_only_from_a_trusted_proxy(site, peer, given, kept):
    here = site(trusted_proxies=("10.0.0.0/8",))
    headers = [("x-request-id", value) for value in given]
    told = here.ask("GET", "/items/a", peer, headers=headers).headers.get_list("x-request-id")
    assert len(told) == 1
    assert (told == given) == kept


def test_the_audit_line_tells_who_what_and_how_long_and_no_payload(site):
    async def identify(request: fastapi.Request) -> auth.Caller:
        checker = auth.Authenticator(settings_lib.Settings())
        return await checker.identify(request.headers.get("authorization"), None)

    app = application()

    @app.post("/v1/ask/{id}", dependencies=[fastapi.Depends(identify)])
    async def ask(id: str, request: fastapi.Request) -> str:
        return str(len(await request.body()))

    here = site(app)
    answer = here.ask(
        "POST",
        f"/v1/ask/{SECRET}?q={SECRET}",
        content=SECRET * 2,
        headers={"Authorization": f"Bearer {SECRET}", "Cookie": SECRET, "User-Agent": SECRET},
    )
    (line,) = here.lines()
    expected = {
        "event": "request",
        "level": "info",
        "request_id": answer.headers["x-request-id"],
        "caller": "anonymous",
        "caller_kind": "anonymous",
        "route": "/v1/ask/{id}",
        "method": "POST",
        "status": 200,
        "bytes_in": 2 * len(SECRET),
        "bytes_out": len(answer.content),
        "address": "203.0.113.5",
    }
    assert {name: line[name] for name in expected} == expected
    assert line["took_ms"] > 0
    assert SECRET not in json.dumps(line)


def test_lines_of_the_application_carry_the_id_and_the_next_request_does_not(site):
    here = site()
    first = here.ask("POST", "/echo", content="x").headers["x-request-id"]
    second = here.ask("POST", "/echo", content="x").headers["x-request-id"]
    found = [(line["event"], line["request_id"]) for line in here.lines()]
    assert found == [(event, made) for made in (first, second) for event in ("inner", "request")]


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/items/a", "/items/{name}"),
        ("/files/a", "/files/{name}"),
        ("/raw/a/b", "/raw/*"),
        ("/nowhere/a", "unmatched"),
        ("/files/a/b", "/files/*"),
    ],
)
def test_requests_are_counted_by_template(site, path, route):
    here = site()
    status = here.ask("GET", path).status_code
    kind = f"{status // 100}xx"
    assert here.counted("request_seconds_count", route=route, method="GET", status=kind) == 1
    assert here.counted("requests_in_flight") == 0


def test_a_method_made_up_is_counted_as_other(site):
    here = site()
    here.ask("X" * 50, "/items/a")
    labels = {"route": "/items/{name}", "method": "other", "status": "4xx"}
    assert here.counted("request_seconds_count", **labels) == 1
    assert here.lines()[0]["method"] == "X" * 16


def test_probes_are_asked_under_any_name_and_not_logged(site):
    here = site()
    for path in ("/healthz/live", "/metrics"):
        assert here.ask("GET", path, headers={"Host": "10.0.0.9:8000"}).status_code == 503
    assert here.lines() == []


@pytest.mark.parametrize("path", ["/items/a", "/nowhere", "/fails"])
def test_every_answer_has_the_security_headers(site, path):
    headers = site().ask("GET", path).headers
    for name, value in middleware.HEADERS.items():
        assert headers.get_list(name) == [value]
    assert "server" not in headers
    assert "strict-transport-security" not in headers


def test_an_answer_may_set_its_own(site):
    headers = site().ask("GET", "/own").headers
    assert headers.get_list("content-security-policy") == ["own"]
    assert headers.get_list("x-frame-options") == ["SAMEORIGIN"]
    assert headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    ("hsts", "proto", "told"),
    [(True, "https", True), (True, "http", False), (False, "https", False)],
)
def test_https_is_asked_for_only_over_https(site, hsts, proto, told):
    here = site(hsts=hsts, trusted_proxies=("10.0.0.1",))
    headers = {"X-Forwarded-Proto": proto}
    answer = here.ask("GET", "/items/a", "10.0.0.1", headers=headers)
    assert ("strict-transport-security" in answer.headers) == told
    assert "strict-transport-security" not in here.ask("GET", "/items/a", headers=headers).headers


def test_a_failure_is_a_document_without_its_reason_which_the_log_has(site):
    here = site()
    answer = here.ask("GET", "/fails")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "internal"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert SECRET not in answer.text
    assert "path" not in answer.text
    failed, audit = here.lines()
    assert failed["request_id"] == audit["request_id"] == answer.json()["request_id"]
    assert "RuntimeError" in failed["exception"]
    assert (audit["status"], audit["level"]) == (500, "error")


def test_an_answer_that_breaks_off_does_not_look_whole(site):
    here = site()
    with pytest.raises(RuntimeError, match="broken off") as error:
        here.ask("GET", "/breaks-off")
    assert error.value.__cause__ is None
    assert [line["event"] for line in here.lines()] == ["a request failed", "request"]


def test_an_application_that_raises_or_says_nothing_gets_an_answer(site):
    async def silent(scope, receive, send) -> None:
        pass

    async def raising(scope, receive, send) -> None:
        raise ZeroDivisionError

    for app in (silent, raising):
        answer = site(app).ask("GET", "/")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("test", True),
        ("TEST:8000", True),
        ("test.", True),
        ("a.example.org", True),
        ("[::1]:8000", True),
        ("example.org", False),
        ("test.evil.example", False),
        ("eviltest", False),
        ("test:80:80", False),
        ("evil@test", False),
        ("", False),
        ("test/..", False),
        ("test\x00", False),
    ],
)
def test_only_names_of_ours_are_answered(site, host, ours):
    answer = site().ask("GET", "/items/a", headers={"Host": host})
    assert answer.status_code == (200 if ours else 400)
    if not ours:
        assert answer.json()["code"] == "host-unknown"
        assert "evil" not in answer.text


def test_two_host_headers_are_refused_and_any_name_may_be_allowed(site):
    headers = [("Host", "test"), ("Host", "evil")]
    assert site().ask("GET", "/items/a", headers=headers).status_code == 400
    headers = {"Host": "evil"}
    assert site(trusted_hosts=("*",)).ask("GET", "/items/a", headers=headers).status_code == 200


def test_a_body_over_the_limit_is_refused_by_the_whole(site):
    here = site(max_body_bytes=1000)
    answer = here.ask("POST", "/echo", content=b"x" * 1001)
    assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert here.ask("POST", "/echo", content=b"x" * 1000).json() == "1000"


def test_the_life_of_the_application_passes_and_a_websocket_does_not(site):
    seen: list[str] = []

    async def app(scope, receive, send) -> None:
        seen.append(scope["type"])

    here = site(app)
    sent: list[dict] = []

    async def send(message) -> None:
        sent.append(message)

    asyncio.run(here.app({"type": "lifespan"}, None, send))
    asyncio.run(here.app({"type": "websocket"}, None, send))
    assert seen == ["lifespan"]
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_client_that_left_is_counted_as_gone(site):
    async def cancelled(scope, receive, send) -> None:
        raise asyncio.CancelledError

    here = site(cancelled)
    with pytest.raises(asyncio.CancelledError):
        here.ask("GET", "/")
    assert here.lines()[0]["status"] == middleware.CLIENT_GONE
    labels = {"route": "unmatched", "method": "GET", "status": "gone"}
    assert here.counted("request_seconds_count", **labels) == 1


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/items/a", {}, 200),
        ("POST", "/items/a", {"content": bytes(2000)}, 413),
        ("GET", "/items/a", {"headers": {"Host": "evil.example"}}, 400),
        ("GET", "/fails", {}, 500),
    ],
)
def test_a_friendly_page_can_read_each_answer_and_no_other_can(site, method, path, options, status):
    here = site(cors_origins=("https://friend.example",), max_body_bytes=1000)

    def allowed(origin: str) -> str | None:
        headers = {**options.get("headers", {}), "Origin": origin}
        answer = here.ask(method, path, **{**options, "headers": headers})
        assert answer.status_code == status
        return answer.headers.get("access-control-allow-origin")

    assert allowed("https://friend.example") == "https://friend.example"
    assert allowed("https://evil.example") is None


def test_without_friendly_origins_no_page_can_read(site):
    answer = site().ask("GET", "/items/a", headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
