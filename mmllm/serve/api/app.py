"""The service as one ASGI application: routes, error answers, and the life of its engines.

`server` runs it with bounds and a drain; each process, and each replica of a cluster, has it whole.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import fastapi
import fastapi.exceptions
import starlette.exceptions
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

import mmllm
from mmllm.serve import logs, problems, tracing
from mmllm.serve import metrics as metrics_lib
from mmllm.serve import settings as settings_lib
from mmllm.serve.api import (
    admission,
    document,
    errors,
    middleware,
    openai_api,
    pages,
    probes,
    routes,
)
from mmllm.serve.engine import service as service_lib
from mmllm.serve.guard import auth, limits


def create_app(
    settings: settings_lib.Settings | None = None, service: service_lib.Service | None = None
) -> ASGIApp:
    """Makes the application.

    Args:
      settings: from the environment by default.
      service: not started; by default one of its own, and logs as the settings say.

    Raises:
      OSError: a file of keys that cannot be read.
      ValueError: wrong settings, or a damaged file of keys.
    """
    settings = settings or settings_lib.load()
    tracing.configure(settings)
    if service is None:
        service = service_lib.Service(settings, metrics_lib.Metrics())
        # Under another server than ours. structlog's own renderer shows the values of variables.
        logs.configure(settings, service.metrics.log_dropped)
    limiter = limits.Limiter(settings, service.metrics)
    app = fastapi.FastAPI(
        title="mmllm",
        version=mmllm.__version__,
        description=document.DESCRIPTION,
        lifespan=_life(service, limiter),
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs else None,
        telemetry=cast(Any, tracing.telemetry()),
    )
    app.state.context = admission.Context(
        settings=settings,
        service=service,
        metrics=service.metrics,
        authenticator=auth.Authenticator(settings),
        limiter=limiter,
    )
    for part in (routes, openai_api, probes):  # in the order of the document
        app.include_router(part.router)
    if settings.docs:
        pages.add_docs(app, settings.root_path)
    if settings.page:
        pages.add_page(app)
    for kind in (
        Exception,
        problems.Problem,
        ClientDisconnect,
        fastapi.exceptions.RequestValidationError,
        starlette.exceptions.HTTPException,
    ):
        app.add_exception_handler(kind, errors.answer)
    app.openapi = lambda: document.describe(app, errors.OpenAIErrorDocument)
    return middleware.wrap(app, settings, service.metrics, lambda: service.health.draining)


def _life(service: service_lib.Service, limiter: limits.Limiter) -> Callable[[Any], Any]:
    @contextlib.asynccontextmanager
    async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
        del app
        async with contextlib.AsyncExitStack() as ends:
            ends.callback(tracing.close)
            ends.push_async_callback(limiter.close)
            ends.push_async_callback(service.close)  # also of a start that failed half-way
            await service.start()
            yield

    return lifespan
