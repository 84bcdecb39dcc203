import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.testclient import TestClient

from mmllm.serve.api import admission
from mmllm.serve.guard import keys
from tests.serve import web


@pytest.fixture(scope="module")
def granted() -> dict[str, tuple[str, dict]]:
    """Keys by name, with their entries; argon2 makes them slow to make."""
    return {
        "reader": keys.new_key("reader", ("caption", "search")),
        "nobody": keys.new_key("nobody", ()),
    }


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory, granted: dict[str, tuple[str, dict]]
) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("keys")
    file = folder / "keys.json"
    file.write_text(json.dumps({"keys": [entry for _, entry in granted.values()]}))
    with web.serving(folder, api_keys_file=file, rate_per_key="40/minute") as client:
        yield client


def test_a_key_opens_what_its_scopes_name_and_nothing_else(
    client: TestClient, granted: dict, picture_bytes: bytes
):
    headers = {"X-API-Key": granted["reader"][0]}
    files = {"image": picture_bytes}
    assert client.post("/v1/caption", files=files, headers=headers).status_code == 200
    refused = client.post("/v1/ocr", files=files, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert client.post("/v1/caption", files=files).json()["code"] == "unauthorized"


def test_a_key_may_come_as_a_bearer_token(client: TestClient, granted: dict):
    headers = {"Authorization": f"Bearer {granted['reader'][0]}"}
    assert client.get("/v1/info", headers=headers).status_code == 200


def test_who_may_do_nothing_learns_nothing(client: TestClient, granted: dict):
    assert client.get("/v1/info").status_code == 401
    headers = {"X-API-Key": granted["nobody"][0]}
    assert client.get("/v1/info", headers=headers).status_code == 403
    assert client.get("/v1/models", headers=headers).status_code == 403


def test_credentials_that_come_twice_are_refused(client: TestClient, granted: dict):
    key = granted["reader"][0]
    twice = client.get("/v1/info", headers=[("X-API-Key", key), ("X-API-Key", "other.key")])
    assert twice.json()["code"] == "bad-request"
    both = client.get("/v1/info", headers={"X-API-Key": key, "Authorization": "Bearer other.key"})
    assert both.json()["code"] == "credentials-conflict"


def test_answers_and_refusals_tell_what_is_left_of_the_limit(client: TestClient, granted: dict):
    headers = {"X-API-Key": granted["reader"][0]}
    answer = client.get("/v1/info", headers=headers)
    assert answer.headers["ratelimit-limit"] == "40"
    answers = [client.get("/v1/info", headers=headers) for _ in range(42)]
    refused = answers[-1]
    assert (refused.status_code, refused.json()["code"]) == (429, "rate-limited")
    assert refused.headers["ratelimit-remaining"] == "0"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert client.get("/healthz/ready").status_code == 200


def test_an_address_that_tries_keys_is_slowed_down(tmp_path: Path, granted: dict):
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [granted["reader"][1]]}))
    with web.serving(tmp_path, api_keys_file=file, rate_per_address="5/minute") as client:
        tried = [
            client.get("/v1/info", headers={"X-API-Key": f"reader.wrong{number}"}).status_code
            for number in range(8)
        ]
    assert tried == [401] * 5 + [429] * 3


@pytest.mark.parametrize(
    ("site", "origin", "status"),
    [
        ("cross-site", "https://evil.example", 403),
        ("same-site", "https://other.test", 403),
        ("cross-site", None, 403),
        ("cross-site", "https://friend.example", 200),
        ("same-origin", "http://test", 200),
        ("none", None, 200),
        ("none", "https://evil.example", 403),
        (None, None, 200),
        (None, "https://evil.example", 403),
        (None, "http://test.evil.example", 403),
        (None, "http://test:8080", 403),
        (None, "http://evil@test", 403),
        (None, "null", 403),
        (None, "", 403),
        (None, "https://friend.example", 200),
        (None, "http://test", 200),
        (None, "https://TEST:443", 200),
    ],
)
def test_the_page_of_another_site_cannot_write(
    open_client: TestClient,
    site: str | None,
    origin: str | None,
    status: int,
):
    given = {"Sec-Fetch-Site": site, "Origin": origin}
    headers = {name: value for name, value in given.items() if value is not None}
    response = open_client.post("/v1/embed/text", json={"texts": ["a"]}, headers=headers)
    assert response.status_code == status


def test_an_own_origin_has_the_port_that_was_asked(open_client: TestClient):
    def status(host: str, origin: str) -> int:
        headers = {"Host": host, "Origin": origin}
        return open_client.post(
            "/v1/embed/text", json={"texts": ["a"]}, headers=headers
        ).status_code

    assert status("test:8080", "http://test:8080") == 200
    assert status("test:8080", "http://test:9090") == 403
    assert status("test:80", "http://test") == 200


def test_two_origins_are_none(open_client: TestClient):
    headers = [("Origin", "https://friend.example"), ("Origin", "https://evil.example")]
    answer = open_client.post("/v1/embed/text", json={"texts": ["a"]}, headers=headers)
    assert answer.status_code == 403


@pytest.fixture(scope="module")
def open_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("open")
    with web.serving(folder, cors_origins=("https://friend.example",)) as client:
        yield client


def test_a_friendly_origin_may_ask_and_read_and_no_other(open_client: TestClient):
    def preflight(origin: str):
        asks = {"Access-Control-Request-Method": "POST", "Origin": origin}
        return open_client.options("/v1/caption", headers=asks).headers

    allowed = "access-control-allow-origin"
    assert preflight("https://friend.example")[allowed] == "https://friend.example"
    assert allowed not in preflight("https://evil.example")


def leaving(request_left: asyncio.Event) -> Request:
    """A request whose client hangs up when the event is set."""

    async def receive() -> dict:
        await request_left.wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "headers": []}, receive)


def test_work_is_done_for_a_client_that_stays():
    async def run() -> int:
        async def work() -> int:
            await asyncio.sleep(0)
            return 7

        return await admission.until_disconnect(leaving(asyncio.Event()), work())

    assert asyncio.run(run()) == 7


def test_an_error_of_the_work_is_the_callers():
    async def run() -> None:
        async def work() -> None:
            raise ValueError("mine")

        await admission.until_disconnect(leaving(asyncio.Event()), work())

    with pytest.raises(ValueError, match="mine"):
        asyncio.run(run())


@pytest.mark.parametrize("how", ["hangs up", "is cancelled"])
def test_work_for_a_client_that_leaves_is_cancelled_and_has_ended(how: str):
    async def run() -> list[str]:
        steps: list[str] = []
        left, begun = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            try:
                begun.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                steps.append("cleaned")
                raise

        task = asyncio.create_task(admission.until_disconnect(leaving(left), work()))
        await begun.wait()
        left.set() if how == "hangs up" else task.cancel()
        with pytest.raises((ClientDisconnect, asyncio.CancelledError)) as caught:
            await task
        return [*steps, caught.type.__name__]

    expected = "ClientDisconnect" if how == "hangs up" else "CancelledError"
    assert asyncio.run(run()) == ["cleaned", expected]
