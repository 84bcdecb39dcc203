"""One connection a turn, nothing after the end, and a pause when the system is full."""

import asyncio
import errno
import socket
from collections.abc import Iterator

import pytest

from mmllm.serve.process import acceptor

WAIT_S = 10.0


class Greeter(asyncio.Protocol):
    """Says its name and closes."""

    def __init__(self, name: bytes) -> None:
        self._name = name

    def connection_made(self, transport) -> None:
        transport.write(self._name)
        transport.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


async def greeting(listener: socket.socket) -> bytes:
    async with asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        reply = await reader.read()
        writer.close()
        return reply


def test_who_is_ahead_leaves_a_burst_to_the_other(listener):
    async def run() -> list[bytes]:
        other = listener.dup()
        both = [
            acceptor.Acceptor(listener, lambda: Greeter(b"first"), lambda: True),
            acceptor.Acceptor(other, lambda: Greeter(b"second")),
        ]
        reply = await asyncio.gather(*(greeting(listener) for _ in range(20)))
        for one in both:
            one.close()
            await one.wait_closed()
        other.close()
        return reply

    reply = asyncio.run(run())
    assert len(reply) == 20
    assert reply.count(b"second") > reply.count(b"first")


def test_who_is_ahead_takes_what_no_other_takes(listener):
    async def run() -> bytes:
        one = acceptor.Acceptor(listener, lambda: Greeter(b"first"), lambda: True)
        reply = await greeting(listener)
        one.close()
        await one.wait_closed()
        return reply

    assert asyncio.run(run()) == b"first"


def test_after_the_end_connections_wait_for_another_process(listener):
    async def run() -> bytes:
        first = acceptor.Acceptor(listener, lambda: Greeter(b"first"))
        first.close()
        await first.wait_closed()
        waiting_client = asyncio.create_task(greeting(listener))
        await asyncio.sleep(0)
        second = acceptor.Acceptor(listener, lambda: Greeter(b"second"))
        reply = await waiting_client
        second.close()
        await second.wait_closed()
        return reply

    assert asyncio.run(run()) == b"second"


def test_who_closes_takes_all_that_wait(listener):
    async def run() -> list[bytes]:
        clients = [socket.create_connection(listener.getsockname(), WAIT_S) for _ in range(20)]
        one = acceptor.Acceptor(listener, lambda: Greeter(b"here"))
        one.close()
        one.close()
        listener.close()
        await one.wait_closed()
        reply = []
        for client in clients:
            with client:
                reply.append(await asyncio.to_thread(client.recv, 16))
        return reply

    assert asyncio.run(run()) == [b"here"] * 20


class Full:
    """A listening socket of a system that has no file left, the first time."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener, self.refused = listener, 0

    def __getattr__(self, name: str):
        return getattr(self._listener, name)

    def accept(self):
        if not self.refused:
            self.refused += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._listener.accept()


def test_a_full_system_is_asked_again_after_a_pause(listener, monkeypatch, caplog):
    monkeypatch.setattr(acceptor, "PAUSE_S", 0.05)
    full = Full(listener)

    async def run() -> bytes:
        one = acceptor.Acceptor(full, lambda: Greeter(b"here"))  # type: ignore[arg-type]
        reply = await greeting(listener)
        one.close()
        await one.wait_closed()
        return reply

    assert asyncio.run(run()) == b"here"
    assert full.refused == 1
    assert "Too many open files" in caplog.text
