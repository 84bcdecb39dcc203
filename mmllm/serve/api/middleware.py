"""What surrounds every request: its id, security headers, the audit line, and the last resort.

    server -> RequestId(SecurityHeaders(Audit(Cors(Failures(Hosts(BodyLimit(application)))))))

`app` wraps the finished application, from outside: FastAPI answers what nobody caught beyond the
reach of its own middleware. Only the standard's calls are used, so that streams stay streams.
"""

import asyncio
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

import structlog
from starlette.middleware import cors
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmllm.serve import metrics as metrics_lib
from mmllm.serve import problems
from mmllm.serve import settings as settings_lib
from mmllm.serve.api import errors
from mmllm.serve.guard import addresses, body

PROBES = ("/healthz/", "/metrics")
"""Paths that are asked by address, as Kubernetes does, and too often for the log."""

UNMATCHED = "unmatched"
CLIENT_GONE = 499  # nginx's status for an answer that nobody was there for
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    # Under "no-referrer" a browser may hide even from this service that its own page asks.
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
CORS_SECONDS = 600
READABLE_HEADERS = (
    "X-Request-ID",
    "Retry-After",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
)
HSTS = (b"strict-transport-security", b"max-age=31536000")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_WEBSOCKET_REFUSED = 1008  # RFC 6455: policy violation

log = structlog.get_logger(__name__)


def wrap(
    app: ASGIApp,
    settings: settings_lib.Settings,
    metrics: metrics_lib.Metrics,
    draining: Callable[[], bool] = lambda: False,
) -> ASGIApp:
    """Surrounds the finished application.

    Args:
      app: with its routes and error handlers.
      settings: limits, trusted hosts and proxies.
      metrics: told of each request.
      draining: whether the service ends.
    """
    inner: ASGIApp = body.BodyLimit(
        app,
        errors.answer,
        settings.max_body_bytes,
        settings.body_timeout_s,
        settings.max_bodies_bytes,
    )
    inner = Failures(Hosts(inner, settings.trusted_hosts), draining)
    if settings.cors_origins:
        # Around the refusals, too: a page could not read why else.
        inner = cors.CORSMiddleware(
            inner,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("Authorization", "Content-Type", "X-API-Key"),
            expose_headers=READABLE_HEADERS,
            max_age=CORS_SECONDS,
        )
    inner = Audit(inner, metrics, settings.trusted_proxies)
    inner = SecurityHeaders(inner, settings.hsts, settings.trusted_proxies)
    inner = RequestId(inner, settings.trusted_proxies)

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await inner(scope, receive, send)
        elif scope["type"] == "lifespan":
            await app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": _WEBSOCKET_REFUSED})

    return service


class RequestId:
    """Gives a request its id: in its state, on its log lines, and in its answer.

    Args:
      app: answers.
      trusted: proxies whose X-Request-ID is kept.
    """

    def __init__(self, app: ASGIApp, trusted: tuple[str, ...] = ()) -> None:
        self._app, self._trusted = app, trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        made = self._given(scope) or uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = made

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", made.encode())]
            await send(message)

        structlog.contextvars.clear_contextvars()  # a connection's requests share a context
        structlog.contextvars.bind_contextvars(request_id=made)
        try:
            await self._app(scope, receive, named)
        finally:
            structlog.contextvars.clear_contextvars()

    def _given(self, scope: Scope) -> str | None:
        values = [value for name, value in scope["headers"] if name == b"x-request-id"]
        if len(values) != 1 or not _REQUEST_ID.fullmatch(values[0]):
            return None
        return values[0].decode() if addresses.is_proxied(scope, self._trusted) else None


class SecurityHeaders:
    """Adds the headers that an answer does not set itself.

    Args:
      app: answers.
      hsts: whether browsers are told to come by https only, once they do.
      trusted: proxies that tell whether the client does.
    """

    def __init__(self, app: ASGIApp, hsts: bool = False, trusted: tuple[str, ...] = ()) -> None:
        self._app, self._hsts, self._trusted = app, hsts, trusted
        self._headers = {name.encode(): value.encode() for name, value in HEADERS.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                added = [pair for pair in self._headers.items() if pair[0] not in given]
                if b"etag" in given and b"cache-control" not in given:
                    added[-1] = (b"cache-control", b"no-cache")  # a file, which may be kept
                if self._hsts and addresses.is_https(scope, self._trusted):
                    added.append(HSTS)
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self._app(scope, receive, secured)


class Audit:
    """Writes one log line a request, without what was in it, and counts and times it.

    Args:
      app: answers.
      metrics: told of each request.
      trusted: proxies that tell the client's address.
    """

    def __init__(
        self, app: ASGIApp, metrics: metrics_lib.Metrics, trusted: tuple[str, ...] = ()
    ) -> None:
        self._app, self._metrics, self._trusted = app, metrics, trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start, root = time.perf_counter(), scope.get("root_path", "")
        read_bytes = sent_bytes = status = 0

        async def counted_receive() -> Message:
            nonlocal read_bytes
            message = await receive()
            read_bytes += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status, sent_bytes
            status = message.get("status", status)
            sent_bytes += len(message.get("body", b""))
            await send(message)

        probe = _is_probe(scope)
        self._metrics.in_flight(1)
        try:
            await self._app(scope, counted_receive, counted_send)
        finally:
            seconds = time.perf_counter() - start
            route, code = _route(scope, root), scope.get("state", {}).get("problem")
            self._metrics.in_flight(-1)
            self._metrics.request(route, scope["method"], status, seconds)
            if code is not None:
                self._metrics.problem(code)
            getattr(log, _level(status, code, probe))(
                "request",
                route=route,
                method=scope["method"][:16],
                status=status or CLIENT_GONE,
                **({} if code is None else {"problem": code}),
                took_ms=round(1000 * seconds, 2),
                bytes_in=read_bytes,
                bytes_out=sent_bytes,
                address=addresses.client_of(scope, self._trusted),
            )


class Failures:
    """Makes a problem document of whatever nobody caught, and logs it.

    A request that is cancelled while the service ends has outlived the drain; it is told so.

    Args:
      app: may raise anything.
      draining: whether the service ends.
    """

    def __init__(self, app: ASGIApp, draining: Callable[[], bool]) -> None:
        self._app, self._draining = app, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = ended = bare = False
        problem = problems.Problem("internal")

        async def watched(message: Message) -> None:
            nonlocal started, ended, bare
            if message["type"] == "http.response.start":
                bare = message["status"] == 500 and _is_plain(message)
                started = not bare
            if not bare:  # the framework's own "Internal Server Error" is no document
                ended = message["type"] == "http.response.body" and not message.get("more_body")
                await send(message)

        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            if started or not self._draining():
                raise
            problem = problems.Problem("draining", retry_after_s=1.0)
        except Exception:
            log.exception("a request failed")
            if started and not ended:
                # The server cuts the connection, so that half an answer does not look whole.
                raise RuntimeError("an answer was broken off") from None
        if not started:
            response = await errors.answer(Request(scope), problem)
            await response(scope, receive, send)


class Hosts:
    """Refuses requests for other names: no other site's name may be pointed here (DNS rebinding).

    Args:
      app: answers the rest.
      hosts: names without port; "*.example.org" is any name below, "*" any at all.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self._app = app
        self._any = "*" in hosts
        self._names = {host.lower().rstrip(".") for host in hosts}
        self._ends = tuple(host.lower()[1:] for host in hosts if host.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._any or _is_probe(scope) or self._is_ours(scope):
            await self._app(scope, receive, send)
            return
        response = await errors.answer(Request(scope), problems.Problem("host-unknown"))
        await response(scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"host"]
        if len(given) != 1:
            return False
        host = re.sub(r":\d*$", "", given[0].decode("latin-1").lower())
        host = host.rstrip(".")
        return host in self._names or bool(self._ends and host.endswith(self._ends))


def _is_probe(scope: Scope) -> bool:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return path.startswith(PROBES[0]) or path == PROBES[1]


def _is_plain(message: Message) -> bool:
    types = [value for name, value in message["headers"] if name.lower() == b"content-type"]
    return not types or types[0].startswith(b"text/plain")


def _route(scope: Scope, root: str) -> str:
    """The template that a request matched, which has none of what a client made up."""
    mounted = scope.get("root_path", "").removeprefix(root)
    route: Any = scope.get("route")
    template = getattr(route, "path", None) or ("/*" if mounted else UNMATCHED)
    return template if template == UNMATCHED else mounted + template


def _level(status: int, code: str | None, probe: bool) -> str:
    if probe:  # `health` tells of what they find
        return "debug"
    if code in problems.CATALOGUE:
        return problems.CATALOGUE[code].level
    return "error" if status >= 500 else "info"
