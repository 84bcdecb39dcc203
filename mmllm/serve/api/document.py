"""The OpenAPI document: what FastAPI derives, and the bodies and errors that it cannot see.

`forms` reads bodies in two media types and every error is a problem document, so both are declared
here, where they are also easy to compare with `schemas` and `problems`.
"""

import copy
import http
from typing import Any

import fastapi
import pydantic
from fastapi.openapi import utils as openapi

from mmllm.serve import problems
from mmllm.serve.api import forms, schemas

PROBLEM = "application/problem+json"
REFERENCE = "#/components/schemas/{model}"

# What any request with a body can meet; a route names what only it can.
COMMON = (
    "bad-request", "invalid-field", "body-too-large", "body-timeout", "unauthorized", "forbidden",
    "rate-limited", "queue-full", "deadline", "draining", "model-unavailable", "internal",
)  # fmt: skip
PICTURE = ("unsupported-media-type", "not-an-image", "image-too-large", "url-refused")

DESCRIPTION = """\
Captions pictures, reads their text, answers questions about them, and finds them by words.

Pictures come as the file `image` of a form, or in JSON as a data URI or base64; nothing is fetched
from a URL. Errors are problem documents (RFC 9457) in the language of `Accept-Language`; every
answer has an `X-Request-ID`.
"""


def with_image(fields: type[schemas.Schema], optional: bool = False) -> dict[str, dict[str, Any]]:
    """The `openapi_extra` of a route whose body `forms.read` reads."""
    content = {
        forms.FORM: {"schema": schemas.form_schema(fields, optional)},
        forms.JSON: {"schema": _schema(schemas.with_image(fields, optional))},
    }
    return {"requestBody": {"required": True, "content": content}}


def with_json(body: type[pydantic.BaseModel]) -> dict[str, dict[str, Any]]:
    """The `openapi_extra` of a route whose body `forms.read_json` reads."""
    return {"requestBody": {"required": True, "content": {forms.JSON: {"schema": _schema(body)}}}}


def errors(
    *codes: str, schema: str = schemas.ProblemDocument.__name__, media_type: str = PROBLEM
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: the errors that all routes may answer, and `codes`."""
    found: dict[int, list[str]] = {}
    for code in dict.fromkeys((*COMMON, *codes)):
        found.setdefault(problems.CATALOGUE[code].status, []).append(code)
    content = {media_type: {"schema": {"$ref": REFERENCE.format(model=schema)}}}
    return {
        status: {
            "description": f"{http.HTTPStatus(status).phrase}: {', '.join(found[status])}",
            "content": content,
        }
        for status in sorted(found)
    }


def describe(app: fastapi.FastAPI, *models: type[pydantic.BaseModel]) -> dict[str, Any]:
    """The document of an app; made once.

    Args:
      app: with all its routes.
      *models: schemas that only `errors` refers to.
    """
    if app.openapi_schema is None:
        found = openapi.get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        found = copy.deepcopy(found)  # the routes' own dictionaries stay as they are
        known = found.setdefault("components", {}).setdefault("schemas", {})
        for model in (schemas.ProblemDocument, *models):
            known[model.__name__] = _schema(model)
        _hoist(found, known)
        _name_by_docstrings(found)
        app.openapi_schema = found
    return app.openapi_schema


def _schema(model: type[pydantic.BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(ref_template=REFERENCE)


def _name_by_docstrings(found: dict[str, Any]) -> None:
    """Names each operation by its docstring's first line; FastAPI takes the function's name."""
    for operation in (each for path in found["paths"].values() for each in path.values()):
        summary, _, rest = operation.pop("description").partition("\n")
        operation["summary"] = summary.rstrip(".")
        if rest.strip():
            operation["description"] = rest.strip()


def _hoist(node: Any, known: dict[str, Any]) -> None:
    """Moves definitions from where pydantic put them to where the references look for them."""
    if isinstance(node, dict):
        known.update(node.pop("$defs", {}))
        for value in list(node.values()):
            _hoist(value, known)
    elif isinstance(node, list):
        for value in node:
            _hoist(value, known)
