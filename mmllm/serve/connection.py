"""An HTTP connection that cannot be held for nothing: each wait of uvicorn's protocol gets a bound.

First in the flow: bytes of a socket -> request -> `mmllm.serve.middleware`. uvicorn bounds only the
pause between two requests. Here the head of a request must come in time and in size, its body must
end in time even where nobody reads it any more, a client that does not read its answer is dropped,
and connections over the limit are answered 503, health probes excepted.
"""

import asyncio
from typing import Any, ClassVar, NamedTuple

from uvicorn.protocols.http import httptools_impl

from mmllm.serve import problems

HEAD_BYTES = 64 * 1024
SPARE_CONNECTIONS = 32  # above the limit: enough to say 503, or that the process is alive
PROBES = b"/healthz"
RETRY_S = 1.0


class Limits(NamedTuple):
    """Bounds of one connection, in seconds, and of all of one process together.

    `body_s` is a second bound: the application's own comes first and answers politely.
    """

    connections: int
    head_s: float
    body_s: float
    write_s: float


class Connection(httptools_impl.HttpToolsProtocol):
    """uvicorn's protocol, with bounds; `bounded` gives them."""

    limits: ClassVar[Limits] = Limits(connections=1024, head_s=10.0, body_s=20.0, write_s=20.0)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._begun = self._in_head = False
        self._head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Gives it time for a head, or drops it when far too many are open."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections + SPARE_CONNECTIONS:
            transport.abort()
            return
        self._expect(self.limits.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the timers."""
        self._expect(None)
        self._expect_reader(False)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses, and refuses a head that is too large."""
        # The parser counts nothing: a head without an end would fill the memory.
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        """The rest of the head is due."""
        super().on_message_begin()
        self._begun = self._in_head = True
        self._head_bytes = 0
        self._expect(self.limits.head_s)

    def on_headers_complete(self) -> None:
        """The body is due; a full process answers 503 itself."""
        self._in_head = False
        full = len(self.connections) > self.limits.connections
        self.app = _full if full and not self.url.startswith(PROBES) else self.config.loaded_app
        self._expect(self.limits.body_s)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Nothing is due."""
        self._expect(None)
        self._begun = False
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The client should read on, in time."""
        super().pause_writing()
        self._expect_reader(True)

    def resume_writing(self) -> None:
        """The client read on."""
        super().resume_writing()
        self._expect_reader(False)

    def timeout_keep_alive_handler(self) -> None:
        """Closes an idle connection."""
        self._close()

    def _expect(self, seconds: float | None) -> None:
        """The rest of what is being read must come within `seconds`; None: nothing is due."""
        if self._timer is not None:
            self._timer.cancel()
        late = self._late
        self._timer = None if seconds is None else self.loop.call_later(seconds, late, seconds)

    def _late(self, seconds: float) -> None:
        if self.flow.read_paused:  # it is the application that does not read on, not the client
            self._expect(seconds)
        elif self._begun and self._in_head:
            self._refuse(b"408 Request Timeout")
        elif not self._begun or self.cycle.response_complete:
            self._close()
        else:
            self.transport.abort()  # wakes the application, which sees a client gone

    def _refuse(self, status: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete:
            head = b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            self.transport.write(head)
        self._close()

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
            # Closing waits for the client to take what was written; not for ever.
            self._expect_reader(True)

    def _expect_reader(self, due: bool) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
        abort, wait = self.transport.abort, self.limits.write_s
        self._write_timer = self.loop.call_later(wait, abort) if due else None


def bounded(limits: Limits) -> type[Connection]:
    """The class of connections with these bounds, for `uvicorn.Config(http=...)`."""
    return type("BoundedConnection", (Connection,), {"limits": limits})


async def _full(scope: Any, receive: Any, send: Any) -> None:
    problem = problems.Problem("queue-full", retry_after_s=RETRY_S)
    response = problems.response(problem)
    response.headers["connection"] = "close"
    await response(scope, receive, send)
