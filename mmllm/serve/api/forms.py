"""Reads the body of a request, a multipart form or JSON, into a schema and a picture still encoded.

The first thing a route does once its caller may call. The size and the time of a body are bounded
before it, by the middleware; here the form has one part a field, and nothing touches a disk.
"""

import asyncio
import logging
from typing import Generic, NamedTuple, TypeVar, cast

import pydantic
import python_multipart.multipart
import starlette.requests
from starlette import datastructures, formparsers

from mmllm.serve import problems
from mmllm.serve.api import schemas

# It warns of each malformed form, which is the client's fault and would fill the log.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

Fields = TypeVar("Fields", bound=pydantic.BaseModel)

IMAGE = "image"
FORM, JSON = "multipart/form-data", "application/json"
INLINE_BYTES = 100_000
"""JSON that is longer is parsed beside the event loop."""
TEXT_BYTES = 1_000_000
"""Most of a body without a picture."""
MAX_VALUES = 20_000
"""Commas of a body, and with them values: base64 has none, a conversation some hundred."""
MAX_ERRORS = 64
UTF_8 = (b"utf-8", b"utf8")


class Read(NamedTuple, Generic[Fields]):
    """A request body.

    Attributes:
      fields: all but the picture.
      image: bytes from a form, a data URI or base64 from JSON, or None.
    """

    fields: Fields
    image: bytes | str | None


class Parts(formparsers.MultiPartParser):
    """Keeps files in memory: the bound of the body is the bound of the memory."""

    spool_max_size = 0  # no bound, in the words of SpooledTemporaryFile
    whole = False

    def on_end(self) -> None:
        """Notes that the last boundary came: a form that was cut off would pass without it."""
        self.whole = True

    def close(self) -> None:
        """Frees the files, also those of parts that never ended."""
        for file in self._files_to_close_on_error:
            file.close()


async def read(
    request: starlette.requests.Request, fields: type[Fields], *, optional: bool = False
) -> Read[Fields]:
    """Reads a request that carries a picture.

    Args:
      request: not read yet.
      fields: what the body holds beside the field `image`.
      optional: the picture may be missing.

    Raises:
      problems.Problem: another media type, or a body that isn't what the schema says.
    """
    kind = media_type(request)
    if kind == FORM:
        result = await _form(request, fields)
    elif kind == JSON:
        body = await read_json(request, schemas.with_image(fields, optional), None)
        result = Read(cast(Fields, body), getattr(body, IMAGE))
    else:
        raise problems.Problem("unsupported-media-type", accepted=f"{FORM}, {JSON}")
    if result.image is None and not optional:
        raise problems.Problem("invalid-field", field=IMAGE, reason="missing")
    return result


async def read_json(
    request: starlette.requests.Request,
    schema: type[Fields],
    max_bytes: int | None = TEXT_BYTES,
) -> Fields:
    """Reads a request whose body is JSON.

    Args:
      request: not read yet.
      schema: of the body.
      max_bytes: of the body; None: as many as any may have, for it carries pictures.

    Raises:
      problems.Problem: another media type, or a body that isn't what the schema says.
    """
    if media_type(request) != JSON:
        raise problems.Problem("unsupported-media-type", accepted=JSON)
    body = await _bytes(request, max_bytes)
    if body.count(b",") > MAX_VALUES:  # each would cost a hundred times its size
        raise problems.Problem("bad-request", reason=f"more than {MAX_VALUES} values")
    try:
        if len(body) <= INLINE_BYTES:
            return schema.model_validate_json(body, strict=True)
        return await asyncio.to_thread(schema.model_validate_json, body, strict=True)
    except pydantic.ValidationError as error:
        raise problem(error) from None


def media_type(request: starlette.requests.Request) -> str:
    """The type that the request says its body has, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _bytes(request: starlette.requests.Request, max_bytes: int | None) -> bytes:
    if max_bytes is None:
        return await request.body()
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise problems.Problem("body-too-large", limit=max_bytes)
    return bytes(body)


def problem(error: pydantic.ValidationError) -> problems.Problem:
    """What to tell about the first thing that is wrong with a body; never its values."""
    if error.error_count() > MAX_ERRORS:  # they come all or not at all
        return problems.Problem("bad-request", reason="far too many fields are wrong")
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] == "json_invalid" or not first["loc"]:
        return problems.Problem("bad-request", reason=first["msg"])
    # A union's member and a model's name are no part of the path that the caller wrote.
    path = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    return problems.Problem("invalid-field", field=path, reason=reason)


async def _form(request: starlette.requests.Request, fields: type[Fields]) -> Read[Fields]:
    """Reads a form: one file called `image`, and each other field once, as text."""
    # As the parser below reads it, which takes "idna" and "punycode" for charsets, too.
    _, options = python_multipart.multipart.parse_options_header(request.headers["content-type"])
    if options.get(b"charset", UTF_8[0]).lower() not in UTF_8:
        raise problems.Problem("bad-request", reason="the form's charset must be utf-8")
    limit = len(fields.model_fields)
    parser = Parts(request.headers, request.stream(), max_files=1, max_fields=limit + 1)
    try:
        parsed = await parser.parse()
        if not parser.whole:
            raise problems.Problem("bad-request", reason="the form is not whole")
        return await _of_parts(parsed, fields)
    except formparsers.MultiPartException as error:
        raise problems.Problem("bad-request", reason=error.message) from None
    finally:
        parser.close()


async def _of_parts(parsed: datastructures.FormData, fields: type[Fields]) -> Read[Fields]:
    values: dict[str, str] = {}
    image: bytes | None = None
    for name, value in parsed.multi_items():
        if (name == IMAGE) != isinstance(value, datastructures.UploadFile):
            reason = "must be a file" if name == IMAGE else "must not be a file"
            raise problems.Problem("invalid-field", field=name, reason=reason)
        if name in values:
            raise problems.Problem("invalid-field", field=name, reason="given twice")
        if isinstance(value, datastructures.UploadFile):
            image = await value.read()
        else:
            values[name] = value
    try:
        return Read(fields.model_validate_strings(values, context={"form": True}), image)
    except pydantic.ValidationError as error:
        raise problem(error) from None
