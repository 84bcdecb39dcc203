"""Connections that would be held for nothing end, in a bounded time, and others do not notice."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvicorn

from mmllm.serve import connection

WAIT_S = 10.0  # far above every bound below: a test that needs it has failed
SHORT_S = 0.2
LONG_S = 60.0
LIMITS = connection.Limits(connections=8, head_s=LONG_S, body_s=LONG_S, write_s=LONG_S)


class App:
    """Answers /large with more than any buffer holds, /read after the body, and else at once."""

    def __init__(self) -> None:
        self.gone = threading.Event()

    async def __call__(self, scope, receive, send) -> None:
        size = 2
        if scope["path"] == "/large":
            size = 50_000_000
        if scope["path"] == "/read":
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.gone.set()
                    return
                more = message["more_body"]
        headers = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, size, 100_000):
            body, more = b"x" * min(100_000, size - start), start + 100_000 < size
            await send({"type": "http.response.body", "body": body, "more_body": more})
        if scope["path"] == "/large":
            self.gone.set()


@contextmanager
def serving(app: Callable, limits: connection.Limits) -> Iterator[int]:
    """Runs uvicorn in a thread and yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=connection.bounded(limits),
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(WAIT_S)
        assert not thread.is_alive()


def connect(port: int, sent: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
    client.sendall(sent)
    return client


def everything(client: socket.socket) -> bytes:
    """What comes until the server closes; a test hangs no longer than WAIT_S."""
    with client:
        parts = []
        try:
            while part := client.recv(65536):
                parts.append(part)
        except ConnectionResetError:
            pass
        return b"".join(parts)


def test_a_connection_that_says_nothing_is_closed():
    with serving(App(), LIMITS._replace(head_s=SHORT_S)) as port:
        assert everything(connect(port)) == b""


def test_half_a_head_is_answered_408():
    with serving(App(), LIMITS._replace(head_s=SHORT_S)) as port:
        assert everything(connect(port, b"GET / HTTP/1.1\r\nHost: a")).startswith(b"HTTP/1.1 408 ")


def test_the_next_request_of_a_connection_has_its_own_time():
    with serving(App(), LIMITS._replace(head_s=SHORT_S)) as port:
        client = connect(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"GET / HTTP/1.1\r\nHo")
        assert b"HTTP/1.1 408 " in everything(client)


def test_a_head_without_an_end_is_refused_at_its_limit():
    head = b"GET / HTTP/1.1\r\nX: " + b"y" * (connection.HEAD_BYTES + 1000)
    with serving(App(), LIMITS) as port:
        assert everything(connect(port, head)).startswith(b"HTTP/1.1 431 ")


def test_a_large_body_is_no_large_head():
    size = 10 * connection.HEAD_BYTES
    head = b"POST /read HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    with serving(App(), LIMITS) as port:
        got = everything(connect(port, head % size + b"z" * size))
        assert got.startswith(b"HTTP/1.1 200 ")


def test_a_body_that_stops_frees_the_application():
    app = App()
    with serving(app, LIMITS._replace(body_s=SHORT_S)) as port:
        sent = b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf"
        assert everything(connect(port, sent)) == b""
        assert app.gone.wait(WAIT_S)


def test_a_body_that_nobody_reads_any_more_does_not_hold_the_connection():
    with serving(App(), LIMITS._replace(body_s=SHORT_S)) as port:
        sent = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf"
        assert everything(connect(port, sent)).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_read_is_dropped():
    app = App()
    with serving(app, LIMITS._replace(write_s=SHORT_S)) as port:
        client = connect(port, b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        assert app.gone.wait(WAIT_S)
        assert len(everything(client)) < 50_000_000


def test_a_full_process_says_so_and_still_answers_probes():
    with serving(App(), LIMITS._replace(connections=1)) as port:
        first = connect(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
        refused = everything(connect(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: " in refused.lower()
        probe = b"GET /healthz/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        assert everything(connect(port, probe)).startswith(b"HTTP/1.1 200 ")
        first.close()


@pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GET\r\n\r\n", b"\0" * 64])
def test_junk_is_answered_400(junk: bytes):
    with serving(App(), LIMITS) as port:
        assert everything(connect(port, junk)).startswith(b"HTTP/1.1 400 ")


def test_bounds_belong_to_one_service():
    first, second = (connection.bounded(LIMITS._replace(connections=n)) for n in (1, 2))
    assert (first.limits.connections, second.limits.connections) == (1, 2)
