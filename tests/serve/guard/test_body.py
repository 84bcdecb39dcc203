"""Bodies: a large, a slow and a packed one end the request, whatever the application does."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from mmllm.serve.api import errors
from mmllm.serve.guard import body

MAX_BYTES = 1000


async def count(scope, receive, send) -> None:
    """An application that reads the body and says how long it is."""
    read = await Request(scope, receive).body()
    await PlainTextResponse(str(len(read)))(scope, receive, send)


async def swallow(scope, receive, send) -> None:
    """One that takes any error for its own, as FastAPI does around the parsing of bodies."""
    try:
        await Request(scope, receive).body()
    except Exception:
        await PlainTextResponse("could not be parsed", 400)(scope, receive, send)


@pytest.fixture(autouse=True)
def short_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "LINGER_S", 0.2)


def ask(app, *chunks: bytes | None, timeout_s: float = 30.0, **headers: str):
    """Sends a body chunk by chunk; None stands for a client that sends nothing more."""
    waiting = list(chunks)
    sent: list[dict] = []

    async def receive():
        chunk = waiting.pop(0) if waiting else None
        if chunk is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

    async def send(message):
        sent.append(message)

    names = [(name.replace("_", "-").encode(), v.encode()) for name, v in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/caption", "headers": names}
    scope |= {"query_string": b"", "root_path": "", "server": ("test", 80), "scheme": "http"}
    limited = body.BodyLimit(app, errors.answer, MAX_BYTES, timeout_s)
    asyncio.run(asyncio.wait_for(limited(scope, receive, send), 30))
    head, text = sent[0], b"".join(message.get("body", b"") for message in sent[1:])
    return head["status"], dict(head["headers"]), text


def test_a_body_up_to_the_limit_arrives():
    assert ask(count, b"x" * MAX_BYTES)[::2] == (200, str(MAX_BYTES).encode())
    assert ask(count, b"x" * 600, b"x" * 400, content_length="1000")[0] == 200
    assert ask(count, b"")[::2] == (200, b"0")


@pytest.mark.parametrize("app", [count, swallow])
@pytest.mark.parametrize(
    ("chunks", "headers"),
    [
        ((None,), {"content_length": "1001"}),  # refused before any of it is read
        ((b"x" * 600, b"x" * 401, None), {}),
        ((b"x" * 600, b"x" * 401, None), {"content_length": "10"}),
        ((b"x" * 10**6,), {}),
    ],
)
def test_a_body_over_the_limit_is_refused_and_ends_the_connection(app, chunks, headers):
    status, told, text = ask(app, *chunks, **headers)
    assert status == 413
    assert told[b"connection"] == b"close"
    assert told[b"content-type"] == b"application/problem+json"
    assert json.loads(text)["code"] == "body-too-large"


@pytest.mark.parametrize("app", [count, swallow])
@pytest.mark.parametrize("chunks", [(None,), (b"x", None), (b"x", b"y", b"", None)])
def test_a_body_that_does_not_end_in_time_is_given_up(app, chunks):
    status, told, text = ask(app, *chunks, timeout_s=0.02)
    assert status == 408
    assert told[b"connection"] == b"close"
    assert json.loads(text)["code"] == "body-timeout"


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip"])
def test_a_packed_body_is_not_read(encoding):
    status, _, text = ask(count, None, content_encoding=encoding)
    assert status == 415
    assert json.loads(text)["code"] == "unsupported-media-type"
    assert ask(count, b"x", content_encoding="identity")[0] == 200


def test_after_the_body_the_wait_for_the_client_to_leave_has_no_bound():
    async def stay(scope, receive, send) -> None:
        request = Request(scope, receive)
        await request.body()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.4)  # longer than the body may take
        await PlainTextResponse("stayed")(scope, receive, send)

    assert ask(stay, b"x", None, timeout_s=0.02)[0] == 408  # the body has not ended
    assert ask(stay, b"x", timeout_s=0.2)[0] == 200


def test_the_rest_of_a_refused_body_is_thrown_away_within_bounds(monkeypatch):
    monkeypatch.setattr(body, "LINGER_S", 30.0)
    assert ask(count, *[b"x" * 2000] * 50)[0] == 413  # to its end
    monkeypatch.setattr(body, "LINGER_BYTES", 5000)
    assert ask(count, *[b"x" * 2000] * 5, None)[0] == 413  # so far
    assert ask(count, None, content_length="5000", expect="100-continue")[0] == 413
    assert ask(count, None, timeout_s=0.02)[0] == 408


def test_an_answer_that_has_begun_is_not_begun_again():
    async def early(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"early"})
        await Request(scope, receive).body()

    assert ask(early, b"x" * 2000)[::2] == (200, b"early")


def test_an_error_of_the_application_stays_its_own():
    async def fail(scope, receive, send) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(fail, b"x")


@pytest.mark.parametrize(
    ("length", "status"),
    [
        ("0" * 5000 + "15", 200),
        ("0" * 5000, 200),
        ("0" * 5000 + "1001", 413),
        ("9" * 5000, 413),
        (str(10**body.MAX_DIGITS), 413),
    ],
)
def test_a_content_length_of_any_number_of_digits_is_read(length: str, status: int):
    assert ask(count, b"x" * 15, content_length=length)[0] == status


def test_bodies_that_wait_share_the_memory_and_give_it_back():
    async def run() -> None:
        limited = body.BodyLimit(
            count, errors.answer, MAX_BYTES, 30.0, max_total_bytes=2 * MAX_BYTES
        )
        ends = [asyncio.Event() for _ in range(3)]
        answers: list[list[dict]] = [[] for _ in range(3)]

        async def request(number: int) -> None:
            parts = iter([(b"x" * 900, True), (b"", False)])

            async def receive() -> dict:
                content, more = next(parts)
                if not more:
                    await ends[number].wait()
                return {"type": "http.request", "body": content, "more_body": more}

            async def send(message: dict) -> None:
                answers[number].append(message)

            scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
            scope |= {"query_string": b"", "root_path": "", "server": ("a", 80), "scheme": "http"}
            await limited(scope, receive, send)

        async with asyncio.timeout(30):
            waiting = [asyncio.create_task(request(number)) for number in (0, 1)]
            await asyncio.sleep(0)
            await request(2)  # no room: the others have not ended
            assert answers[2][0]["status"] == 503
            assert (b"retry-after", b"1") in answers[2][0]["headers"]
            for end in ends:
                end.set()
            await asyncio.gather(*waiting)
            await request(2)
        assert [response[0]["status"] for response in answers[:2]] == [200, 200]
        assert answers[2][-2]["status"] == 200
        assert limited._memory._taken_bytes == 0

    asyncio.run(run())


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A real server with the limit around an application that reads."""
    limited = body.BodyLimit(count, errors.answer, MAX_BYTES, 0.3)
    config = uvicorn.Config(limited, lifespan="off", log_config=None, timeout_keep_alive=60)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(20)


def exchange(port: int, *parts: bytes) -> bytes:
    """What a server says until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        try:
            for part in parts:
                client.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it stopped reading, as it should
        response = b""
        while chunk := client.recv(65_536):
            response += chunk
        return response


HEAD = b"POST / HTTP/1.1\r\nHost: test\r\n"


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([HEAD + b"Content-Length: 50000000\r\n\r\n"], b"413"),
        ([HEAD + b"Content-Length: 2000\r\n\r\n", b"x" * 2000], b"413"),
        ([HEAD + b"Content-Length: 9000000\r\n\r\n", *[b"x" * 90_000] * 100], b"413"),
        (
            [
                HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
                b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n",
            ],
            b"413",
        ),
        ([HEAD + b"Content-Length: 500\r\n\r\n", b"half"], b"408"),
        ([HEAD + b"Transfer-Encoding: chunked\r\n\r\n"], b"408"),
    ],
)
def test_a_real_server_answers_and_closes(port, parts, status, monkeypatch):
    monkeypatch.setattr(body, "LINGER_S", 20.0 if len(parts) > 1 else 0.05)
    response = exchange(port, *parts)
    assert response.startswith(b"HTTP/1.1 " + status)
    assert b"connection: close" in response
