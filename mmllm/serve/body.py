"""How much a request may send and how long it may take: nothing after that is read.

Between `middleware` and the application, which reads the body through it. A body over its limit is
refused by its Content-Length or, sent in chunks, as soon as it is over; one that does not end in
time is given up. Both end the connection, since the rest of the body is still on its way: that is
thrown away for a moment, and then cut off.
"""

import asyncio
import contextlib
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmllm.serve import errors, problems

CLOSE = (b"connection", b"close")
LINGER_S, LINGER_BYTES = 1.0, 20_000_000


class BodyLimit:
    """Bounds the bodies of requests.

    Args:
      app: reads them.
      most_bytes: of a body.
      timeout_s: from the head of a request to the end of its body.
    """

    def __init__(self, app: ASGIApp, most_bytes: int, timeout_s: float) -> None:
        self._app, self._most_bytes, self._timeout_s = app, most_bytes, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (problem := self._refused(scope)) is not None:
            await _give_up(problem, scope, receive, send)
            return
        body = _Body(receive, send, self._most_bytes, self._timeout_s)
        try:
            await self._app(scope, body.receive, body.send)
        except Exception:
            if body.problem is None:
                raise
        # The application may have made something else of the problem.
        if body.problem is not None and not body.answered:
            await _give_up(body.problem, scope, receive, send, body.ended)

    def _refused(self, scope: Scope) -> problems.Problem | None:
        """What is wrong with a body by its head alone."""
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self._most_bytes:
                return problems.Problem("body-too-large", most=self._most_bytes)
            if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                # What is small here may be large once it is unpacked.
                return problems.Problem("unsupported-media-type")
        return None


class _Body:
    """The body of one request on its way to the application."""

    def __init__(self, receive: Receive, send: Send, most_bytes: int, timeout_s: float) -> None:
        self._receive, self._send = receive, send
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
        self._read_bytes += len(message.get("body", b""))
        self.ended = not message.get("more_body", False)
        if self._read_bytes > self._most_bytes:
            self.problem = problems.Problem("body-too-large", most=self._most_bytes)
            raise self.problem
        return message

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
