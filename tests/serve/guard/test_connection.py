"""Connections that would be held for nothing end, in a bounded time, and others do not notice."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvicorn

from mmllm.serve.guard import connection

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
        response = everything(connect(port, head % size + b"z" * size))
        assert response.startswith(b"HTTP/1.1 200 ")


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


CHUNKED = b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


class Seen(App):
    """Notes the heads and bodies of requests."""

    def __init__(self) -> None:
        super().__init__()
        self.heads: list[dict] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope, receive, send) -> None:
        body, message = b"", {"type": "http.request", "more_body": True}
        while message["type"] == "http.request" and message["more_body"]:
            message = await receive()
            body += message.get("body", b"")
        self.heads.append(scope["headers"])
        self.bodies.append(body)
        await App.__call__(self, {**scope, "path": "/"}, receive, send)


def flood(port: int, begun: bytes, more: bytes) -> tuple[bytes, int]:
    """Sends `more` for as long as the server takes it; what it answered, and how much it took."""
    client, sent = connect(port, begun), 0
    try:
        while sent < 50_000_000:
            client.sendall(more)
            sent += len(more)
    except OSError:
        pass
    return everything(client), sent


@pytest.mark.parametrize(
    "more", [b"a00001: b\r\n" * 10_000, b"x" * 100_000], ids=["fields", "one-field"]
)
def test_trailers_without_an_end_are_refused(more: bytes):
    with serving(App(), LIMITS) as port:
        response, sent = flood(port, CHUNKED + b"1\r\nx\r\n0\r\nt: ", more)
    assert sent < 10_000_000
    assert response[:13] in (b"HTTP/1.1 400 ", b"")  # a reset may take the answer away


def test_a_chunk_extension_without_an_end_is_refused():
    with serving(App(), LIMITS) as port:
        _, sent = flood(port, CHUNKED + b"1;", b"x" * 100_000)
    assert sent < 10_000_000


def test_what_is_around_a_body_may_not_outgrow_it():
    with serving(App(), LIMITS) as port:
        _, sent = flood(port, CHUNKED, (b"1;" + b"x" * 1000 + b"\r\ny\r\n") * 20)
    assert sent < 10_000_000


def test_chunks_of_one_byte_are_a_body():
    app = Seen()
    with serving(app, LIMITS) as port:
        client = connect(port, CHUNKED.replace(b"Host", b"Connection: close\r\nHost"))
        client.sendall(b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n")
        assert everything(client).startswith(b"HTTP/1.1 200 ")
    assert app.bodies == [b"x" * 50_000]


def test_trailers_are_no_headers():
    app = Seen()
    with serving(app, LIMITS) as port:
        client = connect(port, CHUNKED.replace(b"Host", b"Connection: close\r\nHost"))
        client.sendall(b"1\r\nx\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\nHost: evil\r\n\r\n")
        assert everything(client).startswith(b"HTTP/1.1 200 ")
    names = [name for name, _ in app.heads[0]]
    assert names == [b"connection", b"host", b"transfer-encoding"]
    assert app.bodies == [b"x"]


def test_a_body_before_the_next_head_is_no_part_of_it():
    size = 100_000
    first = b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
    second = b"GET /read HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with serving(App(), LIMITS) as port:
        client = connect(port, first + b"z" * size + second[:20])
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        client.sendall(second[20:])
        assert everything(client).count(b"HTTP/1.1 200 ") == 1


@pytest.mark.parametrize("version", [b"h2c", b"websocket", b"TLS/1.2, h2c"])
def test_an_offer_of_another_protocol_is_passed_over_and_the_body_kept(version: bytes):
    app = Seen()
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + version
    head = b"POST /a?b HTTP/1.1\r\nHost: a\r\n" + offer + b"\r\nHTTP2-Settings: AAMAAABk\r\n"
    again = b"GET /read HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n"
    with serving(app, LIMITS) as port:
        client = connect(port, head + b"Content-Length: 11\r\n\r\nhello ")
        client.sendall(b"world" + again)
        assert everything(client).count(b"HTTP/1.1 200 ") == 2
    assert app.bodies == [b"hello world", b""]
    assert [name for name, _ in app.heads[0]] == [b"host", b"connection", b"content-length"]


def test_a_tunnel_is_not_dug():
    with serving(App(), LIMITS._replace(head_s=SHORT_S)) as port:
        sent = b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nConnection: close\r\n\r\n"
        assert everything(connect(port, sent))[9:12] in (b"200", b"400")


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"chunked\r\nTransfer-Encoding: chunked"])
def test_a_body_in_another_coding_is_refused(coding: bytes):
    head = b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: " + coding + b"\r\n\r\n"
    with serving(App(), LIMITS) as port:
        response = everything(connect(port, head + b"1\r\nx\r\n0\r\n\r\n"))
    assert response.startswith(b"HTTP/1.1 400 ")


def test_empty_lines_hold_no_connection():
    with serving(App(), LIMITS._replace(head_s=SHORT_S)) as port:
        client = connect(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"\r\n")
        everything(client)


def test_one_address_has_a_share_of_the_connections():
    with serving(App(), LIMITS._replace(from_address=1)) as port:
        first = connect(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert everything(connect(port)).startswith(b"HTTP/1.1 503 ")
        first.close()
        again = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        for _ in range(100):  # until the server has seen the first one leave
            if (response := everything(connect(port, again))).startswith(b"HTTP/1.1 200 "):
                break
        assert response.startswith(b"HTTP/1.1 200 ")


def test_a_trusted_proxy_may_have_all_connections():
    limits = LIMITS._replace(from_address=1, trusted=("127.0.0.1",))
    with serving(App(), limits) as port:
        clients = [connect(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(3)]
        for client in clients:
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
            client.close()
