"""Turns whatever a route raises into the answer: a problem document, or OpenAI's shape of one.

`app` registers it, and the middleware uses it for what never reaches a route. What is not a
`Problem` is answered without a word of it; the middleware logs it.
"""

from collections.abc import Mapping
from typing import Any

import fastapi.exceptions
import pydantic
import starlette.exceptions
import starlette.routing
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from mmllm.serve import messages, problems
from mmllm.serve.guard import limits

OPENAI_PATHS = ("/v1/chat/", "/v1/models")
METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_BY_STATUS = {404: "not-found", 405: "method-not-allowed", 413: "body-too-large"}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

log = structlog.get_logger(__name__)


class OpenAIError(pydantic.BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIErrorDocument(pydantic.BaseModel):
    """What errors under OpenAI's paths answer."""

    error: OpenAIError


def problem_of(error: Exception) -> problems.Problem:
    """The problem to tell of any exception."""
    if isinstance(error, problems.Problem):
        return error
    if isinstance(error, starlette.exceptions.HTTPException):
        return problems.Problem(_BY_STATUS.get(error.status_code, "bad-request"))
    if isinstance(error, fastapi.exceptions.RequestValidationError):
        first = error.errors()[0]  # "loc" is ("path", "id")
        return problems.Problem("invalid-field", field=str(first["loc"][-1]), reason=first["msg"])
    if isinstance(error, ClientDisconnect):
        return problems.Problem("client-gone")
    return problems.Problem("internal")


def request_id(request: Request) -> str:
    """The id that the middleware gave the request."""
    return request.scope.get("state", {}).get("request_id", "")


def language(request: Request) -> str:
    """The language of the model's that the client reads best."""
    return messages.negotiate(request.headers.get("accept-language"))


def document(request: Request, problem: problems.Problem) -> dict[str, Any]:
    """A problem's document for a request."""
    return problems.document(problem, language(request), request_id(request), request.url.path)


def openai_shape(problem: Mapping[str, Any]) -> dict[str, Any]:
    """A problem document as OpenAI's clients read it."""
    status = problem["status"]
    message = " ".join(filter(None, (problem["detail"], problem.get("reason"))))
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    told = OpenAIError(message=message, type=kind, param=problem.get("field"), code=problem["code"])
    return OpenAIErrorDocument(error=told).model_dump()


async def answer(request: Request, error: Exception) -> Response:
    """The response to an exception."""
    problem = problem_of(error)
    request.state.problem = problem.code  # for the audit line
    response: Response = problems.response(
        problem, language(request), request_id(request), request.url.path
    )
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    if path.startswith(OPENAI_PATHS):
        of_body = ("content-length", "content-type")
        headers = {name: value for name, value in response.headers.items() if name not in of_body}
        response = JSONResponse(
            openai_shape(document(request, problem)), response.status_code, headers
        )
    quota = problem.quota.headers if isinstance(problem, limits.RateLimited) else None
    response.headers.update(quota or getattr(request.state, "quota", {}))
    if problem.code == "method-not-allowed":
        response.headers["Allow"] = _allowed(request)  # RFC 9110: on each 405
    return response


def _allowed(request: Request) -> str:
    """The methods of a path; the router's own error names those of the first route only."""
    app: Any = request.scope.get("app")
    return ", ".join(
        method
        for method in METHODS
        if app is not None and any(_matches(route, request, method) for route in app.routes)
    )


def _matches(route: Any, request: Request, method: str) -> bool:
    match, _ = route.matches({**request.scope, "method": method})
    return match == starlette.routing.Match.FULL
