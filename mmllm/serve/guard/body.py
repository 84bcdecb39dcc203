"""How much a request may send and how long it may take: nothing after that is read.

Between `middleware` and the application, which reads the body through it. A body over its limit is
refused by its Content-Length or, sent in chunks, as soon as it is over; one that does not end in
time is given up, and one more than the process has memory for is put off. All end the connection,
since the rest of the body is still on its way: that is thrown away for a moment, and then cut off.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmllm.serve import problems

CLOSE = (b"connection", b"close")
LINGER_S, LINGER_BYTES = 1.0, 20_000_000
MAX_DIGITS = 12  # of a Content-Length
RETRY_S = 1.0

Answer = Callable[[Request, Exception], Awaitable[Response]]
"""Makes the response to a problem."""


class BodyLimit:
    """Bounds the bodies of requests.

    Args:
      app: reads them.
      answer: makes the response to a refusal.
      max_bytes: of a body.
      timeout_s: from the head of a request to the end of its body.
      max_total_bytes: of the bodies of requests that are not answered yet; None: no bound.
    """

    def __init__(
        self,
        app: ASGIApp,
        answer: Answer,
        max_bytes: int,
        timeout_s: float,
        max_total_bytes: int | None = None,
    ) -> None:
        self._app, self._answer = app, answer
        self._max_bytes, self._timeout_s = max_bytes, timeout_s
        self._memory = _MemoryBudget(max_total_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Before a byte of the body is read: a client that asks first (Expect) need not send it.
        if (problem := self._problem_of_head(scope)) is not None:
            await self._refuse(problem, scope, receive, send)
            return
        body = _Body(receive, send, self._max_bytes, self._timeout_s, self._memory)
        try:
            await self._app(scope, body.receive, body.send)
        except Exception:
            # What the application makes of our refusal is no error of its own.
            if body.problem is None:
                raise
        finally:
            body.free()
        # The application may have made something else of the problem.
        if body.problem is not None and not body.answered:
            await self._refuse(body.problem, scope, receive, send, body.ended)

    def _problem_of_head(self, scope: Scope) -> problems.Problem | None:
        """What is wrong with a body by its head alone."""
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                digits = value.lstrip(b"0") or b"0"  # Python refuses to read thousands of them
                if len(digits) > MAX_DIGITS or int(digits) > self._max_bytes:
                    return problems.Problem("body-too-large", limit=self._max_bytes)
            if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                # What is small here may be large once it is unpacked.
                return problems.Problem("unsupported-media-type")
        return None

    async def _refuse(
        self,
        problem: problems.Problem,
        scope: Scope,
        receive: Receive,
        send: Send,
        ended: bool = False,
    ) -> None:
        """Answers and ends the connection, after a moment in which the client can read the answer.

        To close while a client still sends takes the answer away from it (RFC 9112, section 9.6).
        """

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: list[Any] = [*message["headers"], CLOSE]
                message = {**message, "headers": headers}
            else:
                message = {**message, "more_body": True}  # keeps the connection until the drain
            await send(message)

        response = await self._answer(Request(scope), problem)
        await response(scope, receive, closing)
        # Who does not send, or has asked whether to, reads.
        waits = ended or any(name == b"expect" for name, _ in scope["headers"])
        if problem.code != "body-timeout" and not waits:
            await _drain(receive)
        await send({"type": "http.response.body", "body": b""})


class _MemoryBudget:
    """What all bodies may take together."""

    def __init__(self, max_bytes: int | None) -> None:
        self._max_bytes, self._taken_bytes = max_bytes, 0

    def take(self, size_bytes: int) -> bool:
        """Whether there was room; what was taken is given back with a negative size."""
        taken = self._taken_bytes + size_bytes
        if size_bytes > 0 and self._max_bytes is not None and taken > self._max_bytes:
            return False
        self._taken_bytes = taken
        return True


class _Body:
    """The body of one request on its way to the application."""

    def __init__(
        self, receive: Receive, send: Send, max_bytes: int, timeout_s: float, memory: _MemoryBudget
    ) -> None:
        self._receive, self._send = receive, send
        self._memory, self._taken_bytes = memory, 0
        self._max_bytes, self._read_bytes = max_bytes, 0
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
        if self._read_bytes > self._max_bytes:
            self.problem = problems.Problem("body-too-large", limit=self._max_bytes)
            raise self.problem
        if not self._memory.take(size_bytes):
            self.free()  # at once: another body may need it while this one is refused
            self.problem = problems.Problem("queue-full", retry_after_s=RETRY_S)
            raise self.problem
        self._taken_bytes += size_bytes
        return message

    def free(self) -> None:
        """Gives back what the body took of the memory."""
        self._memory.take(-self._taken_bytes)
        self._taken_bytes = 0

    async def send(self, message: Message) -> None:
        # Once the body is refused, what the application answers to it is not the truth.
        if message["type"] == "http.response.start" and self.problem is None:
            self.answered = True
        if self.answered:
            await self._send(message)


async def _drain(receive: Receive) -> None:
    left_bytes = LINGER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while left_bytes > 0:
                message = await receive()
                left_bytes -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
