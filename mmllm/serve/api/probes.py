"""Liveness, readiness, start-up and metrics: what an orchestrator and Prometheus ask.

    GET /healthz/live /healthz/ready /healthz/startup /metrics

They pass no authentication, rate limit or queue, so that load cannot make a healthy process look
dead; they read flags that others keep, see `health`.
"""

import asyncio
import hmac
from typing import Any

import fastapi
from starlette.requests import Request
from starlette.responses import Response

from mmllm.serve import problems
from mmllm.serve.api import admission, document, schemas
from mmllm.serve.engine import health

router = fastapi.APIRouter(tags=["Operation"])

_FAILING: dict[int | str, dict[str, Any]] = {503: {"model": schemas.ProbeAnswer}}


@router.get("/healthz/live", responses=_FAILING)
async def live(request: Request, response: fastapi.Response) -> schemas.ProbeAnswer:
    """Whether the process works; if not, it should be replaced."""
    return _said(response, admission.service_of(request).health.live())


@router.get("/healthz/ready", responses=_FAILING)
async def ready(request: Request, response: fastapi.Response) -> schemas.ProbeAnswer:
    """Whether to send requests here."""
    return _said(response, admission.service_of(request).health.ready())


@router.get("/healthz/startup", responses=_FAILING)
async def startup(request: Request, response: fastapi.Response) -> schemas.ProbeAnswer:
    """Whether the model is loaded and warm."""
    return _said(response, admission.service_of(request).health.startup())


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    | document.errors(),
)
async def metrics(request: Request) -> Response:
    """Counts and times for Prometheus."""
    context = admission.context_of(request)
    token = context.settings.metrics_token
    if not context.settings.metrics:
        raise problems.Problem("not-found")
    if token is not None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        expected = token.get_secret_value().encode()
        matches = hmac.compare_digest(given.strip(" ").encode(), expected)
        if not matches or scheme.lower() != "bearer":
            raise problems.Problem("unauthorized")
    body, media_type = await asyncio.to_thread(context.metrics.expose)
    return Response(body, headers={"Content-Type": media_type})


def _said(response: fastapi.Response, report: health.Report) -> schemas.ProbeAnswer:
    if not report.ok:
        response.status_code = 503
    status = "ok" if report.ok else "failing"
    return schemas.ProbeAnswer(status=status, reasons=list(report.reasons))
