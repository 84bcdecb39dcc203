"""Accepts connections one at a time, so that processes that share a socket share the work.

asyncio and uvloop accept all that wait at once: the first process to wake takes a whole burst, and
with connections that stay open it keeps them. Here a process takes one; while it has more than
another it first stands back a moment, in which one that sleeps can wake. Whoever closes takes all
that wait: the system would reset them when the last process lets go of the socket.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from mmllm.serve.process import coordination

PAUSE_S = 0.5  # when the system has no room for another connection
YIELD_S = 0.005  # for another process to wake, also where the processor is busy

log = logging.getLogger(__name__)


class Acceptor:
    """Accepts on a listening socket until it is closed; stands in the place of an asyncio server.

    Args:
      listener: shared with other processes; its owner closes it.
      protocol: makes the protocol of a connection.
      should_yield: whether another process that shares the socket should have the next.
    """

    def __init__(
        self,
        listener: Any,
        protocol: Callable[[], asyncio.Protocol],
        should_yield: Callable[[], bool] = lambda: False,
    ) -> None:
        self._listener, self._protocol, self._should_yield = listener, protocol, should_yield
        self._has_yielded = False
        self._loop = asyncio.get_running_loop()
        self._joining: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False
        listener.setblocking(False)  # another process may take a connection between look and take
        self._listen()

    def close(self) -> None:
        """Accepts what waits in the socket, and no more."""
        if self._closed:
            return
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        for _ in range(coordination.BACKLOG):
            try:
                accepted, _ = self._listener.accept()
            except OSError:  # none is left, or no room for one
                return
            self._take(accepted)

    async def wait_closed(self) -> None:
        """Waits until every accepted connection has its protocol."""
        if self._joining:
            await asyncio.wait(self._joining)

    def _listen(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        if not self._has_yielded and self._should_yield():
            self._has_yielded = True  # once: then it takes what no other took
            self._wait(YIELD_S)
            return
        self._has_yielded = False
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another process took it, or the client left
        except OSError as error:  # no file or memory left: not to be asked again at once
            log.error("no connection can be accepted for %s s: %s", PAUSE_S, error)
            self._wait(PAUSE_S)
            return
        self._take(accepted)

    def _take(self, accepted: socket.socket) -> None:
        task = self._loop.create_task(self._join(accepted))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    def _wait(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._listen)

    async def _join(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(self._protocol, accepted)
        except OSError as error:
            log.debug("a connection was lost at once: %s", error)
            accepted.close()
