"""A whole process: it announces itself, answers, drains, and says by its exit code why it ended."""

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mmllm.serve.process import coordination, server

WAIT_S = 60.0
PATIENCE_S = 30  # of a drain that a test ends long before
START = re.compile(r"mmllm: nano at http://127\.0\.0\.1:(\d+) ")


class Running:
    """A running `mmllm serve`."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        environment = {**os.environ, "MMLLM_DRAIN_S": "4", **variables}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mmllm", "serve", "--port", "0", *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        lines = iter(self.process.stderr.readline, "")
        found = next(filter(None, map(START.search, lines)), None)
        assert found, f"ended with {self.process.wait(WAIT_S)}"
        self.port = int(found[1])

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)

    def ask(self, path: str) -> tuple[int, str]:
        connection = self.connection()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def text(self, path: str) -> str:
        return self.ask(path)[1]

    def get(self, path: str) -> tuple[int, dict]:
        status, text = self.ask(path)
        return status, json.loads(text)

    def end(self) -> int:
        self.process.communicate(timeout=WAIT_S)
        return self.process.returncode


@contextlib.contextmanager
def running(*arguments: str, **variables: str) -> Iterator[Running]:
    service = Running(*arguments, **variables)
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.process.kill()
        service.process.communicate(timeout=WAIT_S)


def begin(service: Running, picture: bytes) -> socket.socket:
    """Sends a request but its last byte."""
    body = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        + picture
        + b"\r\n--b--\r\n"
    )
    head = (
        f"POST /v1/caption HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    client = socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S)
    client.sendall(head.encode() + body[:-1])
    return client


def test_a_request_that_began_before_sigterm_is_answered_and_the_process_ends_with_0(
    picture_bytes: bytes,
):
    with running(MMLLM_DRAIN_S=str(PATIENCE_S)) as service:
        client = begin(service, picture_bytes)
        assert service.get("/healthz/live")[0] == 200  # the half request has been read by now
        service.process.send_signal(signal.SIGTERM)
        status, closes = ready(service)
        while status == 200:  # the signal is on its way
            status, closes = ready(service)
        assert (status, closes) == (503, "close")
        client.sendall(b"\n")
        with client:
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        answered = time.monotonic()
        assert service.end() == coordination.EXIT_OK
        assert time.monotonic() - answered < PATIENCE_S / 2  # nothing is left to wait for
        with pytest.raises(OSError, match="refused"):
            service.get("/healthz/live")


def test_a_request_that_the_end_of_the_drain_cuts_off_is_told_so(picture_bytes: bytes):
    with running(MMLLM_DRAIN_S="1") as service, begin(service, picture_bytes) as client:
        assert service.get("/healthz/live")[0] == 200
        service.process.send_signal(signal.SIGTERM)
        answer = b"".join(iter(lambda: client.recv(65536), b"")).decode()
        assert answer.startswith("HTTP/1.1 503 ")
        assert "retry-after: 1" in answer.lower()
        assert json.loads(answer.partition("\r\n\r\n")[2])["code"] == "draining"
        assert service.end() == coordination.EXIT_OK


def ready(service: Running) -> tuple[int, str | None]:
    """Status of the probe, and what is to come of the connection."""
    with contextlib.closing(service.connection()) as connection:
        connection.request("GET", "/healthz/ready")
        answer = connection.getresponse()
        return answer.status, answer.getheader("connection")


def test_a_process_over_its_memory_drains_and_asks_to_be_replaced():
    with running(MMLLM_MAX_RSS_MB="64") as service:
        assert service.end() == coordination.EXIT_RESTART


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "why"),
    [("engine", "engine threads hang"), ("decode", "nothing was taken from the queue of decode")],
)
def test_a_process_whose_threads_hang_for_good_asks_to_be_replaced(
    where: str, why: str, picture_bytes: bytes, tmp_path: Path
):
    """From a hanging thread to the exit code, with one client that asks again and again."""
    command = [sys.executable, "-m", "tests.serve.hanging_service", where, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ill:
        try:
            assert ill.stdout is not None
            port = int(ill.stdout.readline())
            told = {caption(port, picture_bytes + bytes([number])) for number in range(100)}
            assert ill.wait(WAIT_S) == coordination.EXIT_RESTART
        finally:
            ill.kill()
    assert told <= {None, 503, 504}
    assert 504 in told
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (critical,) = [line["event"] for line in lines if "be replaced" in line["event"]]
    assert why in critical


@pytest.mark.slow
def test_a_thread_that_hangs_does_not_hold_up_the_end_after_sigterm(
    picture_bytes: bytes, tmp_path: Path
):
    command = [sys.executable, "-m", "tests.serve.hanging_service", "decode", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ill:
        try:
            assert ill.stdout is not None
            assert caption(int(ill.stdout.readline()), picture_bytes) == 504
            ill.send_signal(signal.SIGTERM)
            assert ill.wait(WAIT_S) == coordination.EXIT_OK
        finally:
            ill.kill()


def caption(port: int, picture: bytes) -> int | None:
    """The status of an answer; None if there is no service any more."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    body = json.dumps({"image": base64.b64encode(picture).decode()})
    try:
        connection.request("POST", "/v1/caption", body, {"Content-Type": "application/json"})
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def test_two_workers_share_a_port_and_add_up_their_metrics():
    with running("--workers", "2") as service:
        while "mmllm_ready_processes 2.0" not in service.text("/metrics"):
            pass  # connections wait in the socket's queue until a worker accepts
        count = 20
        for _ in range(count):
            assert service.get("/v1/models")[0] == 200
        found = re.search(
            r'seconds_count\{[^}]*route="/v1/models"[^}]*\} ([\d.]+)', service.text("/metrics")
        )
        assert found
        assert float(found[1]) == count
        with contextlib.ExitStack() as held:
            address = ("127.0.0.1", service.port)
            for _ in range(16):
                held.enter_context(socket.create_connection(address, timeout=WAIT_S))
            while sum(counts := connections(service)) < 16:
                pass  # not all are accepted yet; none is refused
        assert min(counts) > 0
        service.process.send_signal(signal.SIGTERM)
        assert service.end() == coordination.EXIT_OK


def test_workers_that_drain_refuse_new_connections_and_answer_the_accepted(picture_bytes: bytes):
    with running("--workers", "2", MMLLM_DRAIN_S=str(PATIENCE_S)) as service:
        client = begin(service, picture_bytes)
        assert service.get("/healthz/live")[0] == 200
        service.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            try:
                service.get("/healthz/live")
            except ConnectionRefusedError:
                break
            except (OSError, http.client.HTTPException):
                continue  # its connection waited when the socket closed
        assert service.process.poll() is None  # it waits for the half request
        client.sendall(b"\n")
        with client:
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        answered = time.monotonic()
        assert service.end() == coordination.EXIT_OK
        assert time.monotonic() - answered < PATIENCE_S / 2


@pytest.mark.slow
def test_a_worker_over_its_memory_serves_until_its_replacement_does():
    # Health gives up a process that is over its memory after drain_s.
    with running("--workers", "2", MMLLM_MAX_RSS_MB="64", MMLLM_DRAIN_S="40") as service:
        assert service.process.stderr is not None
        stderr = ""
        # Three times: the new workers ask as well.
        while stderr.count("asks to be replaced") < 3 and "ended with" not in stderr:
            stderr += service.process.stderr.readline()
            assert service.get("/v1/models")[0] == 200
        assert "ended with" not in stderr
        service.process.send_signal(signal.SIGTERM)
        assert service.end() == coordination.EXIT_OK


def connections(service: Running) -> list[int]:
    """Open connections of each worker."""
    workers = psutil.Process(service.process.pid).children()
    serving = [worker for worker in workers if "spawn_main" in " ".join(worker.cmdline())]
    return [len(worker.net_connections("tcp")) - 1 for worker in serving]  # one listens


def test_options_of_uvicorn_believe_nothing_and_bound_all(make_settings):
    config = server.configuration(None, make_settings(max_connections=7, body_timeout_s=2.0))
    assert not config.proxy_headers
    assert not config.server_header
    assert not config.access_log
    assert config.http.limits.connections == 7
    assert config.http.limits.from_address == 256
    assert config.http.limits.body_s == 2.0 + coordination.GRACE_S
    assert config.timeout_graceful_shutdown == 5


def test_a_check_starts_the_model_and_leaves_nothing(make_settings):
    before = threading.active_count()
    server.check(make_settings())
    assert threading.active_count() <= before + 1


def test_a_check_of_a_missing_model_says_so(make_settings):
    with pytest.raises(FileNotFoundError, match="no model 'absent'"):
        server.check(make_settings(model="absent"))


def test_places_that_can_be_written_are_left_as_they_were(make_settings, tmp_path: Path):
    log, index = tmp_path / "log", tmp_path / "a" / "b" / "index.sqlite"
    log.write_text("a line\n")
    server.check_places(make_settings(log_file=log, index_path=index))
    assert log.read_text() == "a line\n"
    assert list(index.parent.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "log"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("log_file", "nothing/log"),
        ("log_file", "folder"),
        ("log_file", "/proc/log"),
        ("index_path", "/proc/x/index.sqlite"),
        ("index_path", "folder"),
        ("index_path", "file/index.sqlite"),
    ],
)
def test_a_place_that_cannot_be_written_is_named(make_settings, tmp_path: Path, name, path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=name.upper() + "|" + name) as caught:
        server.check_places(make_settings(**{name: tmp_path / path}))
    assert path in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_file_of_others_is_named(make_settings, tmp_path: Path):
    (tmp_path / "log").touch(mode=0o400)
    with pytest.raises(ValueError, match="MMLLM_LOG_FILE"):
        server.check_places(make_settings(log_file=tmp_path / "log"))


def test_an_index_that_may_hold_nothing_needs_no_place(make_settings):
    server.check_places(make_settings(index_path=Path("/proc/x/index.sqlite"), index_items=0))
