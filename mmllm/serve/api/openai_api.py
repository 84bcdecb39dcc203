"""The part of OpenAI's API that a small vision model can keep: chat about a picture, and a list.

    client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="...")
    client.chat.completions.create(model="nano", messages=[{"role": "user", "content": [
        {"type": "text", "text": "what colour is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}]}])

Beside `routes`, on the same service; `chat` says how a conversation becomes a task. Errors under
these paths have OpenAI's shape.
"""

import contextlib
import json
import time
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

import fastapi
import pydantic
import starlette.responses
from fastapi import Depends
from starlette.requests import Request

from mmllm.serve import problems
from mmllm.serve.api import admission, chat, document, errors, forms, routes
from mmllm.serve.guard import auth

EVENTS = "text/event-stream"

router = fastapi.APIRouter(prefix="/v1", tags=["OpenAI"])


class Message(pydantic.BaseModel):
    """What the model says."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(pydantic.BaseModel):
    """The one answer."""

    index: Literal[0] = 0
    message: Message
    logprobs: None = None
    finish_reason: Literal["stop"] = "stop"


class Completion(pydantic.BaseModel):
    """A conversation's next message."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: Annotated[int, pydantic.Field(description="Seconds since 1970.")]
    model: str
    choices: list[Choice]
    system_fingerprint: str


class Model(pydantic.BaseModel):
    """A model that answers here."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "mmllm"


class Models(pydantic.BaseModel):
    """All models that answer here."""

    object: Literal["list"] = "list"
    data: list[Model]


_ERRORS = {"schema": errors.OpenAIErrorDocument.__name__, "media_type": forms.JSON}


@router.get(
    "/models",
    dependencies=[Depends(admission.admit())],
    responses=document.errors(**_ERRORS),
)
async def models(request: Request) -> Models:
    """Lists the model that serves."""
    return Models(data=[Model(id=admission.service_of(request).info().model)])


@router.get(
    "/models/{model}",
    dependencies=[Depends(admission.admit())],
    responses=document.errors("not-found", **_ERRORS),
)
async def model(request: Request, model: str) -> Model:
    """Describes the model that serves, if it has this name."""
    _check_model(request, model)
    return Model(id=model)


@router.post(
    "/chat/completions",
    response_model=Completion,
    openapi_extra=document.with_json(chat.ChatRequest),
    responses={
        **document.errors(*document.PICTURE, "not-found", **_ERRORS),
        200: {"content": {EVENTS: {"schema": {"type": "string"}}}},
    },
)
async def completions(
    request: Request,
    caller: Annotated[auth.Caller, Depends(admission.admit())],
) -> Any:
    """Answers the last user message of a conversation, whole or piece by piece."""
    if not caller.scopes & set(chat.TASKS):  # before the body is read
        auth.require(caller, "vqa")
    body = await forms.read_json(request, chat.ChatRequest, None)
    _check_model(request, body.model)
    context = admission.context_of(request)
    parsed = chat.parse(body, context.settings.max_images)
    auth.require(caller, parsed.task)
    languages = context.service.info().languages
    if parsed.language is None or (parsed.language not in languages and body.language is None):
        # A wish to describe may be in a language the model does not speak.
        parsed = parsed._replace(language="en" if "en" in languages else languages[0])
    image = await routes.picture(request, parsed.image)
    if not body.stream:
        text = await admission.until_disconnect(request, _whole(request, parsed, image))
        return _completion(request, body.model, text)
    pieces = _pieces(request, parsed, image)
    # An error before the first piece still has a status of its own.
    first = await admission.until_disconnect(request, _first(pieces))
    frame = _Frame(request, body.model)
    headers = {**request.state.quota, "X-Accel-Buffering": "no"}
    return starlette.responses.StreamingResponse(
        _events(request, frame, first, pieces), media_type=EVENTS, headers=headers
    )


class _Frame:
    """What the answer's whole and all its pieces have in common."""

    def __init__(self, request: Request, model: str) -> None:
        self.common = {
            "id": f"chatcmpl-{errors.request_id(request)}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": admission.service_of(request).info().fingerprint,
        }

    def event(self, delta: dict[str, str], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = {**self.common, "object": "chat.completion.chunk", "choices": [choice]}
        return _event(json.dumps(chunk, ensure_ascii=False))


def _event(data: str) -> str:
    return f"data: {data}\n\n"


async def _whole(request: Request, parsed: chat.ParsedChat, image: bytes) -> str:
    service = admission.service_of(request)
    if parsed.task == "ocr":
        return "\n".join(line.text for line in (await service.ocr(image)).lines)
    if parsed.task == "vqa":
        return (await service.vqa(image, parsed.question)).text
    return (await service.caption(image, language=parsed.language or "en")).text


async def _pieces(
    request: Request, parsed: chat.ParsedChat, image: bytes
) -> AsyncGenerator[str, None]:
    if parsed.task == "ocr":  # lines are read all at once
        yield await _whole(request, parsed, image)
        return
    question = parsed.question if parsed.task == "vqa" else None
    pieces: Any = admission.service_of(request).stream(
        image, question=question, language=parsed.language or "en"
    )
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            yield piece


async def _first(pieces: AsyncGenerator[str, None]) -> str:
    return await anext(pieces, "")


async def _events(
    request: Request, frame: _Frame, first: str, pieces: AsyncGenerator[str, None]
) -> AsyncGenerator[str, None]:
    async with contextlib.aclosing(pieces):
        yield frame.event({"role": "assistant", "content": first})
        try:
            async for piece in pieces:
                yield frame.event({"content": piece})
        except Exception as error:  # the status is sent: say it where the client looks
            failed = errors.openai_shape(errors.document(request, errors.problem_of(error)))
            yield _event(json.dumps(failed, ensure_ascii=False))
            return
        yield frame.event({}, "stop")
        yield _event("[DONE]")


def _completion(request: Request, model: str, text: str) -> Completion:
    choice = Choice(message=Message(content=text))
    return Completion(choices=[choice], **_Frame(request, model).common)


def _check_model(request: Request, name: str) -> None:
    """Refuses a model that does not serve here, as OpenAI does."""
    if name != admission.service_of(request).info().model:
        raise problems.Problem("not-found", field="model", reason="see /v1/models")
