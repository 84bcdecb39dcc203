import json

import fastapi
import fastapi.exceptions
import pytest
import starlette.exceptions
from starlette.requests import ClientDisconnect, Request

from mmllm.serve import problems
from mmllm.serve.api import errors, schemas
from mmllm.serve.guard import limits


def request(path: str = "/v1/caption", language: str = "en", root_path: str = "") -> Request:
    headers = [(b"accept-language", language.encode()), (b"host", b"test")]
    return Request(
        {
            "type": "http",
            "path": root_path + path,  # as uvicorn tells it
            "root_path": root_path,
            "query_string": b"q=secret",
            "headers": headers,
            "state": {"request_id": "id-1"},
        }
    )


def told(error: Exception, path: str = "/v1/caption", language: str = "en", root_path: str = ""):
    coroutine = errors.answer(request(path, language, root_path), error)
    with pytest.raises(StopIteration) as stopped:  # it awaits nothing
        coroutine.send(None)
    return stopped.value.value


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (problems.Problem("text-empty", field="question"), 422, "text-empty"),
        (starlette.exceptions.HTTPException(404), 404, "not-found"),
        (starlette.exceptions.HTTPException(405), 405, "method-not-allowed"),
        (starlette.exceptions.HTTPException(418), 400, "bad-request"),
        (
            fastapi.exceptions.RequestValidationError(
                [{"loc": ("path", "id"), "msg": "no", "type": "x"}]
            ),
            422,
            "invalid-field",
        ),
        (ClientDisconnect(), 499, "client-gone"),
        (RuntimeError("/home/secret"), 500, "internal"),
    ],
)
def test_any_exception_becomes_a_problem_document(error: Exception, status: int, code: str):
    response = told(error)
    assert response.status_code == status
    document = schemas.ProblemDocument.model_validate_json(response.body)
    assert (document.code, document.instance) == (code, "/v1/caption")
    assert document.request_id == "id-1"
    assert b"secret" not in response.body


def test_the_methods_that_would_do_are_named():
    app = fastapi.FastAPI()
    app.add_api_route("/v1/caption", lambda: None, methods=["POST"])
    app.add_api_route("/v1/caption", lambda: None, methods=["DELETE"])
    app.add_api_route("/v1/other", lambda: None, methods=["GET"])
    refused = request()
    refused.scope |= {"app": app, "method": "PUT"}
    with pytest.raises(StopIteration) as stopped:
        errors.answer(refused, starlette.exceptions.HTTPException(405)).send(None)
    assert stopped.value.value.headers["allow"] == "DELETE, POST"


def test_the_audit_line_learns_the_code():
    refused = request()
    with pytest.raises(StopIteration):
        errors.answer(refused, problems.Problem("deadline")).send(None)
    assert refused.scope["state"]["problem"] == "deadline"


def test_a_refusal_for_too_many_requests_tells_the_quota():
    response = told(limits.RateLimited(limits.Quota(5, 0, 12.0)))
    assert response.headers["ratelimit-limit"] == "5"
    assert response.headers["retry-after"] == "12"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("unauthorized", "authentication_error"),
        ("forbidden", "permission_error"),
        ("rate-limited", "rate_limit_error"),
        ("deadline", "server_error"),
        ("not-found", "invalid_request_error"),
    ],
)
def test_under_openais_paths_errors_have_openais_shape(code: str, kind: str):
    response = told(problems.Problem(code, field="model", reason="why"), "/v1/chat/completions")
    assert response.headers["content-type"] == "application/json"
    told_error = json.loads(response.body)["error"]
    assert (told_error["type"], told_error["code"], told_error["param"]) == (kind, code, "model")
    assert told_error["message"].endswith("why")


@pytest.mark.parametrize(
    ("path", "root_path", "kind"),
    [
        ("/v1/chat/completions", "/api", "application/json"),
        ("/v1/models", "/a/b", "application/json"),
        ("/v1/caption", "/api", "application/problem+json"),
        ("/v1/caption", "/v1/chat", "application/problem+json"),
    ],
)
def test_the_shape_follows_the_path_below_a_proxys_prefix(path: str, root_path: str, kind: str):
    response = told(problems.Problem("not-found"), path, root_path=root_path)
    assert response.headers["content-type"] == kind


def test_an_error_speaks_the_clients_language_in_either_shape():
    for path in ("/v1/caption", "/v1/models"):
        response = told(problems.Problem("not-found"), path, "de")
        assert "Unter dieser Adresse" in response.body.decode()
        assert response.headers["content-language"] == "de"
