"""What a request passes before its route runs: who calls, whether they may, and how often.

Also `Context`, what every route needs of its process, and `until_disconnect`, which stops work
whose client has hung up.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, TypeVar

import fastapi
import fastapi.security
import starlette.requests

from mmllm.serve import metrics, problems
from mmllm.serve import settings as settings_lib
from mmllm.serve.engine import service
from mmllm.serve.guard import addresses, auth, limits

Result = TypeVar("Result")

BEARER = fastapi.security.HTTPBearer(auto_error=False, description="An API key or a JWT.")
API_KEY = fastapi.security.APIKeyHeader(name="X-API-Key", auto_error=False)
Bearer = Annotated[fastapi.security.HTTPAuthorizationCredentials | None, fastapi.Security(BEARER)]
ApiKey = Annotated[str | None, fastapi.Security(API_KEY)]
WRITE_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclasses.dataclass(frozen=True)
class Context:
    """What the routes of one process work with."""

    settings: settings_lib.Settings
    service: service.Service
    metrics: metrics.Metrics
    authenticator: auth.Authenticator
    limiter: limits.Limiter


def context_of(request: starlette.requests.Request) -> Context:
    """The process that a request came to."""
    return request.app.state.context


def service_of(request: starlette.requests.Request) -> service.Service:
    """The service of that process."""
    return context_of(request).service


def admit(scope: str | None = None) -> Callable[..., Awaitable[auth.Caller]]:
    """The dependency of a route that callers need `scope` for; None: who may do anything."""

    async def dependency(
        request: starlette.requests.Request,
        response: fastapi.Response,
        bearer: Bearer,
        api_key: ApiKey,
    ) -> auth.Caller:
        del bearer, api_key  # stand in the OpenAPI document; the headers are read whole
        caller = await identify(request)
        response.headers.update(request.state.quota)
        if scope is not None:
            auth.require(caller, scope)
        elif not caller.scopes:
            raise problems.Problem("unauthorized" if caller.kind == auth.ANONYMOUS else "forbidden")
        return caller

    return dependency


async def identify(request: starlette.requests.Request) -> auth.Caller:
    """Who calls, once the rate limits let them.

    Raises:
      problems.Problem: credentials that are wrong, too many requests, or a page of another site.
    """
    context = context_of(request)
    _refuse_other_sites(request, context.settings)
    credentials = [_only(request, name) for name in ("authorization", "x-api-key")]
    # The address first: whoever tries keys is slowed down, and no key is hashed beyond the limit.
    address = addresses.client_of(request.scope, context.settings.trusted_proxies)
    quota = await context.limiter.hit(None, address)
    request.state.quota = quota.headers
    caller = await context.authenticator.identify(*credentials)
    if caller.kind != auth.ANONYMOUS:
        own = await context.limiter.hit(caller, None)
        if own.remaining / own.limit < quota.remaining / quota.limit:
            request.state.quota = own.headers
    return caller


def _only(request: starlette.requests.Request, name: str) -> str | None:
    """The value of a header that must not come twice."""
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise problems.Problem("bad-request", reason=f"more than one header {name}")
    return values[0] if values else None


def _refuse_other_sites(
    request: starlette.requests.Request, settings: settings_lib.Settings
) -> None:
    """Keeps another site's page from writing: a browser sends a form without asking (CORS)."""
    fetched_by = request.headers.get("sec-fetch-site", "none")
    if request.method not in WRITE_METHODS or fetched_by == "same-origin":
        return
    origins = request.headers.getlist("origin")
    if not origins and fetched_by == "none":  # no browser, or one that the user sent here
        return
    # Over plain http browsers tell the origin alone.
    is_own = fetched_by == "none" and [_authority(origin) for origin in origins] == [
        _host_header(request)
    ]
    if not is_own and (len(origins) != 1 or origins[0] not in settings.cors_origins):
        raise problems.Problem("forbidden")


def _authority(origin: str) -> str:
    """Name and port of an origin, without the port that its scheme has anyway."""
    scheme, _, place = origin.lower().partition("://")
    return place.removesuffix(":443" if scheme == "https" else ":80") or origin


def _host_header(request: starlette.requests.Request) -> str:
    """Name and port that the client asked for; the scheme is the proxy's affair."""
    host = request.headers.get("host", "").lower()
    return host.removesuffix(":80").removesuffix(":443")


async def until_disconnect(
    request: starlette.requests.Request, work: Coroutine[Any, Any, Result]
) -> Result:
    """Works for a client as long as it is there.

    Args:
      request: its body has been read.
      work: cancelled when the client hangs up.

    Raises:
      starlette.requests.ClientDisconnect: it did.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise starlette.requests.ClientDisconnect
    finally:
        for task in (working, leaving):
            task.cancel()
        # Cancelled work gives back what it holds before the request counts as done.
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(request: starlette.requests.Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
