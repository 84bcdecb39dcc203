"""Every error that a client may see, once: its code, HTTP status and log level.

Any part of the service raises `Problem`; the outermost layer turns it into an RFC 9457 document in
the client's language. What only the operator may know goes to the log and never in here.
"""

import json
import math
import unicodedata
from typing import Any, Literal, NamedTuple
from urllib import parse

import starlette.responses

from mmllm.serve import messages

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:mmllm:problem:"
MAX_PARAM = 100
"""Characters of a text from the request that an error repeats."""

Level = Literal["debug", "info", "warning", "error"]


class Kind(NamedTuple):
    """What is the same at each occurrence of an error."""

    status: int
    level: Level = "info"


CATALOGUE: dict[str, Kind] = {
    # The request as a whole
    "bad-request": Kind(400),
    "host-unknown": Kind(400),
    "not-found": Kind(404),
    "method-not-allowed": Kind(405),
    "body-timeout": Kind(408),
    "body-too-large": Kind(413),
    "unsupported-media-type": Kind(415),
    # Its fields
    "invalid-field": Kind(422),
    "too-many-items": Kind(422),
    "base64-invalid": Kind(422),
    "url-refused": Kind(422),
    "language-unknown": Kind(422),
    "text-empty": Kind(422),
    "text-too-long": Kind(422),
    "text-too-many-tokens": Kind(422),
    "text-control": Kind(422),
    # Its picture
    "not-an-image": Kind(422),
    "image-truncated": Kind(422),
    "image-too-large": Kind(413),
    "image-too-small": Kind(422),
    "image-animated": Kind(422),
    "image-too-complex": Kind(422),
    "image-format": Kind(415),
    # Its sender
    "unauthorized": Kind(401),
    "key-invalid": Kind(401, "warning"),
    "token-invalid": Kind(401, "warning"),
    "token-expired": Kind(401),
    "credentials-conflict": Kind(400, "warning"),
    "forbidden": Kind(403, "warning"),
    "rate-limited": Kind(429),
    "client-gone": Kind(499),
    # Load and faults
    "queue-full": Kind(503, "warning"),
    "draining": Kind(503),
    "model-unavailable": Kind(503, "error"),
    "engine-stuck": Kind(503, "error"),
    "deadline": Kind(504, "warning"),
    "internal": Kind(500, "error"),
    # The index and the model
    "entry-not-found": Kind(404),
    "index-full": Kind(507, "warning"),
    "index-unavailable": Kind(503, "error"),
    "model-refused": Kind(422, "warning"),
    "reload-running": Kind(409),
    "several-processes": Kind(409, "warning"),
}

_CHALLENGES = {
    "unauthorized": "Bearer",
    "key-invalid": 'Bearer error="invalid_token"',
    "token-invalid": 'Bearer error="invalid_token"',
    "token-expired": 'Bearer error="invalid_token"',
}
# Not needed in JSON, but no browser that guesses a type can then find a tag in it.
_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


class Problem(Exception):
    """An error for the client.

    Args:
      code: of CATALOGUE.
      retry_after_s: seconds until another try makes sense; None if it never does or is unknown.
      field: of the request that is wrong.
      reason: a technical hint in English for developers, beside the translated text.
      **params: variables of the code's message.

    Raises:
      TypeError: a variable of the message that is missing, or one that it does not have.
      ValueError: an unknown code.
    """

    def __init__(
        self,
        code: str,
        *,
        retry_after_s: float | None = None,
        field: str | None = None,
        reason: str | None = None,
        **params: Any,
    ) -> None:
        if code not in CATALOGUE:
            raise ValueError(f"no problem is called {code!r}; add it to problems.CATALOGUE")
        given = {**params, **({} if field is None else {"field": field})}
        needed = messages.variables(messages.DEFAULT, code)
        known = needed | messages.variables(messages.DEFAULT, code, "more") | {"field"}
        if not needed <= given.keys() <= known:
            raise TypeError(
                f"problem {code!r} takes {', '.join(sorted(known))} and needs "
                f"{', '.join(sorted(needed)) or 'none'}, got {', '.join(sorted(given)) or 'none'}"
            )
        super().__init__(code)
        self.code, self.kind = code, CATALOGUE[code]
        self.retry_after_s, self.field = retry_after_s, None if field is None else printable(field)
        self.reason = None if reason is None else printable(reason)
        self.params = {name: _inert(value) for name, value in given.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are copied by their positional arguments, which here are not all.
        return (Exception.__new__, (type(self), self.code), self.__dict__)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.kind.status

    @property
    def retry_after(self) -> int | None:
        """Whole seconds for the Retry-After header, at least 1."""
        if self.retry_after_s is None or math.isnan(self.retry_after_s):
            return None
        return max(1, math.ceil(min(self.retry_after_s, 86_400.0)))


def document(
    problem: Problem,
    language: str = messages.DEFAULT,
    request_id: str | None = None,
    instance: str | None = None,
) -> dict[str, Any]:
    """The members of a problem's document; those that are unknown are left out.

    Args:
      problem: what happened.
      language: of the text, one of `messages.LANGUAGES`.
      request_id: finds the request in the log.
      instance: the path of the request.

    Source: RFC 9457, with the extensions code, request_id, field, reason and retry_after.
    """
    seconds = problem.retry_after
    params = problem.params if seconds is None else {**problem.params, "seconds": seconds}
    members = {
        "type": TYPE + problem.code,
        "title": messages.title(problem.code, language),
        "status": problem.status,
        "detail": messages.detail(problem.code, language, params),
        "instance": None
        if instance is None
        else parse.quote(instance, safe="/%:", errors="replace"),
        "code": problem.code,
        "request_id": request_id or None,
        "field": problem.field,
        "reason": problem.reason,
        "retry_after": seconds,
    }
    return {name: value for name, value in members.items() if value is not None}


def response(
    problem: Problem,
    language: str = messages.DEFAULT,
    request_id: str | None = None,
    instance: str | None = None,
) -> starlette.responses.Response:
    """The answer that tells a client of a problem: `document` in JSON, with its headers.

    Args:
      problem: what happened.
      language: of the text, one of `messages.LANGUAGES`.
      request_id: finds the request in the log.
      instance: the path of the request.
    """
    headers = {
        "Content-Language": language,
        "Vary": "Accept-Language",
        "Cache-Control": "no-store",
    }
    if problem.retry_after is not None:
        headers["Retry-After"] = str(problem.retry_after)
    if problem.code in _CHALLENGES:
        headers["WWW-Authenticate"] = _CHALLENGES[problem.code]
    told = json.dumps(document(problem, language, request_id, instance), ensure_ascii=False)
    return starlette.responses.Response(
        told.translate(_ESCAPES).encode(),
        problem.status,
        headers,
        media_type=MEDIA_TYPE,
    )


def printable(text: str) -> str:
    """A text from a request, fit to be repeated: shortened, without characters that do things."""
    kept = text if len(text) <= MAX_PARAM else text[: MAX_PARAM - 1] + "…"
    return "".join(
        sign if unicodedata.category(sign)[0] != "C" else "\N{REPLACEMENT CHARACTER}"
        for sign in kept
    )


def _inert(value: Any) -> Any:
    """A variable's value: a number, which the message writes its language's way, or a text."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return printable(", ".join(map(str, value)))
    return printable(str(value))
