"""How much a request may send and how long it may take: nothing after that is read.

Between `middleware` and the application, which reads the body through it. A body over its limit is
refused by its Content-Length or, sent in chunks, as soon as it is over; one that does not end in
time is given up, and one more than the process has memory for is put off. All end the connection,
since the rest of the body is still on its way: that is thrown away for a moment, and then cut off.
"""

import asyncio
import contextlib
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmllm.serve import errors, problems

CLOSE = (b"connection", b"close")
LINGER_S, LINGER_BYTES = 1.0, 20_000_000
MOST_DIGITS = 12  # of a Content-Length
RETRY_S = 1.0


class BodyLimit:
    """Bounds the bodies of requests.

    Args:
      app: reads them.
      most_bytes: of a body.
      timeout_s: from the head of a request to the end of its body.
      most_bytes_in_all: of the bodies of requests that are not answered yet; None: no bound.
    """

    def __init__(
        self,
        app: ASGIApp,
        most_bytes: int,
        timeout_s: float,
        most_bytes_in_all: int | None = None,
    ) -> None:
        self._app, self._most_bytes, self._timeout_s = app, most_bytes, timeout_s
        self._memory = _Memory(most_bytes_in_all)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (problem := self._refused(scope)) is not None:
            await _give_up(problem, scope, receive, send)
            return
        body = _Body(receive, send, self._most_bytes, self._timeout_s, self._memory)
        try:
            await self._app(scope, body.receive, body.send)
        except Exception:
            if body.problem is None:
                raise
        finally:
            body.free()
        # The application may have made something else of the problem.
        if body.problem is not None and not body.answered:
            await _give_up(body.problem, scope, receive, send, body.ended)

    def _refused(self, scope: Scope) -> problems.Problem | None:
        """What is wrong with a body by its head alone."""
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                digits = value.lstrip(b"0") or b"0"  # Python refuses to read thousands of them
                if len(digits) > MOST_DIGITS or int(digits) > self._most_bytes:
                    return problems.Problem("body-too-large", most=self._most_bytes)
            if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                # What is small here may be large once it is unpacked.
                return problems.Problem("unsupported-media-type")
        return None


class _Memory:
    """What all bodies may take together."""

    def __init__(self, most_bytes: int | None) -> None:
        self._most_bytes, self._taken_bytes = most_bytes, 0

    def take(self, size_bytes: int) -> bool:
        """Whether there was room; what was taken is given back with a negative size."""
        taken = self._taken_bytes + size_bytes
        if size_bytes > 0 and self._most_bytes is not None and taken > self._most_bytes:
            return False
        self._taken_bytes = taken
        return True


class _Body:
    """The body of one request on its way to the application."""

    def __init__(
        self, receive: Receive, send: Send, most_bytes: int, timeout_s: float, memory: _Memory
    ) -> None:
        self._receive, self._send = receive, send
        self._memory, self._taken_bytes = memory, 0
        self._most_bytes, self._read_bytes = most_bytes, 0
        self._until = asyncio.get_running_loop().time() + timeout_s
        self.ended = False
        self.problem: problems.Problem | None = None
        self.answered = False

    async def receive(self) -> Message:
        if self.problem is not None:
            raise self.problem
        if self.ended:  # what comes now is the end of the connection, which has no date
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            self.problem = problems.Problem("body-timeout")
            raise self.problem from None
        size_bytes = len(message.get("body", b""))
        self._read_bytes += size_bytes
        self.ended = not message.get("more_body", False)
        if self._read_bytes > self._most_bytes:
            self.problem = problems.Problem("body-too-large", most=self._most_bytes)
            raise self.problem
        if not self._memory.take(size_bytes):
            self.free()
            self.problem = problems.Problem("queue-full", retry_after_s=RETRY_S)
            raise self.problem
        self._taken_bytes += size_bytes
        return message

    def free(self) -> None:
        """Gives back what the body took of the memory."""
        self._memory.take(-self._taken_bytes)
        self._taken_bytes = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self.problem is None:
            self.answered = True
        if self.answered:
            await self._send(message)


async def _give_up(
    problem: problems.Problem, scope: Scope, receive: Receive, send: Send, ended: bool = False
) -> None:
    """Answers and ends the connection, after a moment in which the client can read the answer.

    To close while a client still sends takes the answer away from it (RFC 9112, section 9.6).
    """

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: list[Any] = [*message["headers"], CLOSE]
            message = {**message, "headers": headers}
        else:
            message = {**message, "more_body": True}
        await send(message)

    response = await errors.answer(Request(scope), problem)
    await response(scope, receive, closing)
    # Who does not send, or has asked whether to, reads.
    waits = ended or any(name == b"expect" for name, _ in scope["headers"])
    if problem.code != "body-timeout" and not waits:
        await _drain(receive)
    await send({"type": "http.response.body", "body": b""})


async def _drain(receive: Receive) -> None:
    left_bytes = LINGER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while left_bytes > 0:
                message = await receive()
                left_bytes -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
