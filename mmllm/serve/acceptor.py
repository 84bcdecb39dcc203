"""Accepts connections one at a time, so that processes that share a socket share the work.

asyncio and uvloop accept all that wait at once: the first process to wake takes a whole burst, and
with connections that stay open it keeps them. Here a process takes one and stands back a moment;
the next goes to whoever is idle.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

PAUSE_S = 0.5  # when the system has no room for another connection
TURN_S = 0.002  # time for another process to wake; 500 new connections a second are plenty

log = logging.getLogger(__name__)


class Acceptor:
    """Accepts on a listening socket until it is closed; stands in the place of an asyncio server.

    Args:
      listener: shared with other processes; its owner closes it.
      protocol: makes the protocol of a connection.
      turn_s: how long it stands back after each; 0 if the socket is not shared.
    """

    def __init__(
        self, listener: Any, protocol: Callable[[], asyncio.Protocol], turn_s: float = 0.0
    ) -> None:
        self._listener, self._protocol, self._turn_s = listener, protocol, turn_s
        self._loop = asyncio.get_running_loop()
        self._joining: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False
        listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Accepts no more; what waits in the socket is for the other processes."""
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        """Waits until every accepted connection has its protocol."""
        if self._joining:
            await asyncio.wait(self._joining)

    def _listen(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another process took it, or the client left
        except OSError as error:  # no file or memory left: not to be asked again at once
            log.error("no connection can be accepted for %s s: %s", PAUSE_S, error)
            self._stand_back(PAUSE_S)
            return
        task = self._loop.create_task(self._join(accepted))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)
        if self._turn_s:
            self._stand_back(self._turn_s)

    def _stand_back(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._listen)

    async def _join(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(self._protocol, accepted)
        except OSError as error:
            log.debug("a connection was lost at once: %s", error)
            accepted.close()
