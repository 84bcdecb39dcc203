"""What a process of the service and its supervisor agree on: exit codes, bounds, the socket.

Imports nothing of the service, so that the supervisor stays small.
"""

import multiprocessing
import os
import socket
import time
from typing import Any

EXIT_OK, EXIT_START, EXIT_RESTART, EXIT_STUCK = 0, 1, 3, 4
"""Done; could not start; ill and drained, so replace it; did not end and was killed."""

GRACE_S = 5.0  # what a last bound waits after the one that should have acted
BACKLOG = 2048


class SharedState:
    """What processes behind one socket tell one another and their supervisor.

    Args:
      beats: when each process last turned its event loop (monotonic seconds; 0: not yet), shared.
      open: connections that each has (-1: not serving), shared.
      requests: whether each asks to be replaced (1), shared.
      slot: this process's own.
    """

    def __init__(self, beats: Any, open: Any, requests: Any, slot: int) -> None:
        self._beats, self._open, self._requests, self._slot = beats, open, requests, slot

    def beat(self, connections: int) -> None:
        """Tells that the event loop turns, and how many connections it has; -1: no more come."""
        self._beats[self._slot] = time.monotonic()
        self._open[self._slot] = connections

    def should_yield(self, connections: int) -> bool:
        """Whether another process has fewer connections than this one."""
        self._open[self._slot] = connections
        return any(0 <= other < connections for other in self._open)

    def ask_for_replacement(self) -> None:
        """This process should be replaced, but can serve until another does in its slot."""
        self._requests[self._slot] = 1

    @property
    def wants_replacement(self) -> bool:
        """Whether this process asked for a replacement."""
        return bool(self._requests[self._slot])

    def clear(self) -> None:
        """Nobody works here."""
        self._beats[self._slot], self._open[self._slot] = 0.0, -1
        self._requests[self._slot] = 0

    @property
    def last_beat_s(self) -> float:
        """When this process last told that it works; 0 for never."""
        return self._beats[self._slot]


def is_supervised() -> bool:
    """Whether the process that started this one through multiprocessing still runs."""
    parent = multiprocessing.parent_process()
    return parent is not None and parent.pid == os.getppid()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, which the processes of one service share.

    Raises:
      ValueError: an address that is not this machine's, or a port that is taken or forbidden.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(
            f"cannot listen on {host} port {port} ({reason}): choose others with --host and --port"
        ) from error


def address(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
