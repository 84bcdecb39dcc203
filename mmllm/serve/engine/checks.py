"""What a request's words and numbers must be for the model, checked before anything waits.

`service` calls these first; each cleans with `texts` and asks the bundle's own tokenizer, so that
no batch is spoiled by a text the model cannot take.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmllm.runtime import decode, prompts
from mmllm.serve import problems
from mmllm.serve.engine import bundles
from mmllm.serve.engine import index as index_lib
from mmllm.serve.guard import texts as texts_lib


def language(bundle: bundles.Bundle, code: str) -> None:
    """Refuses a language that the model does not speak.

    Raises:
      Problem: "language-unknown", with those it speaks.
    """
    if code not in bundle.languages:
        raise problems.Problem("language-unknown", field="language", languages=bundle.languages)


def question(bundle: bundles.Bundle, text: str) -> str:
    """A question, cleaned.

    Raises:
      Problem: a text that `texts.clean` refuses, or "text-too-many-tokens".
    """
    cleaned = texts_lib.clean("question", text, prompts.MAX_QUESTION)
    with _tokens_of("question"):
        prompts.question(bundle.tokenizer, cleaned, bundle.config.max_text)
    return cleaned


def texts(bundle: bundles.Bundle, field: str, given: Sequence[str], limit: int) -> tuple[str, ...]:
    """Texts to embed, cleaned.

    Raises:
      Problem: none or more than `limit` of them, a text that `texts.clean` refuses, or
        "text-too-many-tokens".
    """
    if not given:
        raise problems.Problem("text-empty", field=field)
    if len(given) > limit:
        raise problems.Problem("too-many-items", field=field, limit=limit)
    cleaned = tuple(texts_lib.clean(field, text, prompts.MAX_QUESTION) for text in given)
    for text in cleaned:
        with _tokens_of(field):
            prompts.embedding(bundle.tokenizer, text, bundle.config.max_text)
    return cleaned


def number(field: str, value: int, limit: int) -> None:
    """Refuses a number outside 1..limit.

    Raises:
      Problem: "invalid-field".
    """
    if not 1 <= value <= limit:
        raise problems.Problem("invalid-field", field=field, reason=f"must be 1 to {limit}")


def beam(value: int) -> None:
    """Refuses a beam that the decoder does not take: it would spoil a batch.

    Raises:
      Problem: "invalid-field".
    """
    number("beam", value, decode.MAX_BEAM)


def metadata(given: Mapping[str, Any]) -> None:
    """Refuses metadata that the index cannot keep.

    Raises:
      Problem: "invalid-field" if it is not JSON or too large.
    """
    try:
        size = len(json.dumps(dict(given), ensure_ascii=False, allow_nan=False).encode())
    except (TypeError, ValueError) as error:
        raise problems.Problem("invalid-field", field="metadata", reason="not JSON") from error
    limit = index_lib.MAX_METADATA_BYTES
    if size > limit:
        raise problems.Problem(
            "invalid-field", field="metadata", reason=f"{size} bytes are more than {limit}"
        )


@contextlib.contextmanager
def _tokens_of(field: str) -> Iterator[None]:
    """What the model's own check refuses of a cleaned text is its number of tokens."""
    try:
        yield
    except ValueError as error:
        raise problems.Problem("text-too-many-tokens", field=field) from error
