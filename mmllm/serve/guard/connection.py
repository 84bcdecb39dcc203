"""An HTTP connection that cannot be held for nothing: each wait of uvicorn's protocol gets a bound.

First in the flow: bytes of a socket -> request -> `api.middleware`. uvicorn bounds only the pause
between two requests. Here the head of a request must come in time and in size, its body must end in
time even where nobody reads it any more and may have little around it, a client that does not read
its answer is dropped, and connections over the limit are answered 503, health probes excepted.
Offers to speak another protocol are passed over, trailers dropped.
"""

import asyncio
import collections
from typing import Any, ClassVar, NamedTuple

import httptools
from uvicorn.protocols.http import httptools_impl

from mmllm.serve import problems
from mmllm.serve.guard import addresses

HEAD_BYTES = 64 * 1024
TRAILER_BYTES = 8 * 1024  # after the last byte of a body; or between two
FRAMING_SHARE = 16  # bytes around each byte of a body; chunks of one byte have 5
SPARE_CONNECTIONS = 32  # above the limit: enough to say 503, or that the process is alive
PROBES = b"/healthz"
RETRY_S = 1.0
OFFERS = (b"upgrade", b"http2-settings")


class Limits(NamedTuple):
    """Bounds of one connection, in seconds, and of all of one process together.

    `body_s` is a second bound: the application's own comes first and answers politely. One address
    may have `from_address` connections; `trusted` proxies, which have many clients, any number.
    """

    connections: int
    head_s: float
    body_s: float
    write_s: float
    from_address: int = 1_000_000
    trusted: tuple[str, ...] = ()


class Connection(httptools_impl.HttpToolsProtocol):
    """uvicorn's protocol, with bounds; `bounded` gives them."""

    limits: ClassVar[Limits] = Limits(connections=1024, head_s=10.0, body_s=20.0, write_s=20.0)
    by_address: ClassVar[collections.Counter[str]] = collections.Counter()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._begun = self._in_head = False
        self._head_bytes = self._body_bytes = self._framing_bytes = self._trailer_bytes = 0
        self._heads = 0  # begun by the data being parsed
        self._has_upgrade_offer = False  # of another protocol, in the head being parsed
        self._address: str | None = None

    def connection_made(self, transport: Any) -> None:
        """Gives it time for a head, or drops it when far too many are open."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections + SPARE_CONNECTIONS:
            transport.abort()
            return
        self._set_timer(self.limits.head_s)
        # A trusted proxy brings many clients over few addresses, so it is not counted.
        peer = {"client": self.client}
        if self.client is not None and not addresses.is_proxied(peer, self.limits.trusted):
            self._address = addresses.limit_key(self.client[0])
            self.by_address[self._address] += 1
            if self.by_address[self._address] > self.limits.from_address:
                self._refuse(b"503 Service Unavailable", b"retry-after: 1\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the timers."""
        self._set_timer(None)
        self._set_write_timer(False)
        if self._address is not None:
            self.by_address[self._address] -= 1
            # Addresses that left are forgotten: a scan of many would fill the memory.
            if not self.by_address[self._address]:
                del self.by_address[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses, and refuses a head or what is around a body when it is too large."""
        # The parser counts nothing: a head without an end would fill the memory.
        was_idle, was_in_head, body_bytes = not self._begun, self._in_head, self._body_bytes
        self._heads = 0
        self._parse(data)
        if self.transport.is_closing():
            return
        if not self._begun:
            # Empty lines end the wait for a request: they begin another.
            if self._timer is None and (self.cycle is None or self.cycle.response_complete):
                self._set_timer(self.limits.head_s)
        elif self._in_head:
            # Not what came before it: the body of an earlier request, or many requests.
            if self._heads == (1 if was_idle else 0) and (was_idle or was_in_head):
                self._head_bytes += len(data)
        # Sizes of chunks, their extensions, trailers: the parser passes over them without a bound.
        elif not self._heads and not was_in_head:
            self._framing_bytes += len(data) - (self._body_bytes - body_bytes)
            has_body = self._body_bytes > body_bytes
            self._trailer_bytes = 0 if has_body else self._trailer_bytes + len(data)
        self._check_sizes()

    def on_message_begin(self) -> None:
        """The rest of the head is due."""
        super().on_message_begin()
        self._begun = self._in_head = True
        self._heads += 1
        self._head_bytes = self._body_bytes = self._framing_bytes = self._trailer_bytes = 0
        self._set_timer(self.limits.head_s)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keeps a field of the head; those after a body could pass for a proxy's."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The body is due; a full process answers 503 itself."""
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._has_upgrade_offer = True  # and is read again without
            return
        self._in_head = False
        # uvicorn's own limit would answer 503 to probes as well, and the process be restarted.
        full = len(self.connections) > self.limits.connections
        self.app = self.config.loaded_app
        if full and not self.url.startswith(PROBES):
            self.app = _full
        elif not self._is_plainly_framed():
            self.app = _coded
        self._set_timer(self.limits.body_s)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Counts."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Nothing is due."""
        if self._has_upgrade_offer:
            return
        self._set_timer(None)
        self._begun = False
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The client should read on, in time."""
        super().pause_writing()
        self._set_write_timer(True)

    def resume_writing(self) -> None:
        """The client read on."""
        super().resume_writing()
        self._set_write_timer(False)

    def timeout_keep_alive_handler(self) -> None:
        """Closes an idle connection."""
        self._close()

    def _parse(self, data: bytes) -> None:
        """Feeds the parser; a request that offers another protocol is read again without the offer.

        RFC 9110 lets a server pass over an offer; the parser would pass over the body instead.
        """
        self._unset_keepalive_if_required()
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self._has_upgrade_offer:  # CONNECT, answered like any unknown method
                    return
                self._has_upgrade_offer, rest = False, rest[upgrade.args[0] :]
                head = self._head_without_offer()
                # A new parser: the old one is in its state for another protocol for good.
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn
                self.parser.feed_data(head)
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return

    def _head_without_offer(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        for name, value in self.headers:
            if name == b"connection":
                parts = [part.strip() for part in value.split(b",")]
                value = b", ".join(part for part in parts if part.lower() not in OFFERS)
            if name not in OFFERS:
                lines.append(name + b": " + value)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _is_plainly_framed(self) -> bool:
        """Whether a body comes as it is, whole or in chunks: no other coding is undone."""
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        return not codings or [coding.strip().lower() for coding in codings] == [b"chunked"]

    def _check_sizes(self) -> None:
        if self._head_bytes > HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large")
        max_bytes = HEAD_BYTES + FRAMING_SHARE * self._body_bytes
        if self._trailer_bytes > TRAILER_BYTES or self._framing_bytes > max_bytes:
            self._refuse(b"400 Bad Request")

    def _set_timer(self, seconds: float | None) -> None:
        """The rest of what is being read must come within `seconds`; None: nothing is due."""
        # One timer for whatever is due: the phases of a request follow one another.
        if self._timer is not None:
            self._timer.cancel()
        late = self._on_timeout
        self._timer = None if seconds is None else self.loop.call_later(seconds, late, seconds)

    def _on_timeout(self, seconds: float) -> None:
        if self.flow.read_paused:  # it is the application that does not read on, not the client
            self._set_timer(seconds)
        elif self._begun and self._in_head:
            self._refuse(b"408 Request Timeout")
        elif not self._begun or self.cycle.response_complete:
            self._close()
        else:
            self.transport.abort()  # wakes the application, which sees a client gone

    def _refuse(self, status: bytes, field: bytes = b"") -> None:
        cycle = self.cycle
        # A raw answer may be written only where no other is under way: two would be mixed up.
        is_own = self._begun and not self._in_head and not self.pipeline
        if cycle is None or cycle.response_complete or (is_own and not cycle.response_started):
            head = b"HTTP/1.1 " + status + b"\r\nconnection: close\r\n" + field
            self.transport.write(head + b"content-length: 0\r\n\r\n")
        if is_own and cycle is not None:  # the application sees a client gone, and says no more
            cycle.disconnected = True
            cycle.message_event.set()
        self._close()

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
            # Closing waits for the client to take what was written; not for ever.
            self._set_write_timer(True)

    def _set_write_timer(self, due: bool) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
        abort, wait = self.transport.abort, self.limits.write_s
        self._write_timer = self.loop.call_later(wait, abort) if due else None


def bounded(limits: Limits) -> type[Connection]:
    """The class of connections with these bounds, for `uvicorn.Config(http=...)`."""
    # uvicorn takes a class, not an object: the bounds are attributes of a class of its own.
    own = {"limits": limits, "by_address": collections.Counter()}
    return type("BoundedConnection", (Connection,), own)


async def _full(scope: Any, receive: Any, send: Any) -> None:
    await _refused(problems.Problem("queue-full", retry_after_s=RETRY_S), scope, receive, send)


async def _coded(scope: Any, receive: Any, send: Any) -> None:
    reason = "a Transfer-Encoding other than chunked"
    await _refused(problems.Problem("bad-request", reason=reason), scope, receive, send)


async def _refused(problem: problems.Problem, scope: Any, receive: Any, send: Any) -> None:
    response = problems.response(problem)
    response.headers["connection"] = "close"
    await response(scope, receive, send)
