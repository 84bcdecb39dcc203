"""What a request's words must be for the model that serves, checked before anything waits.

`service` calls these first; each cleans with `texts` and asks the bundle's own tokenizer, so that
no batch is spoiled by a text the model cannot take.
"""

import contextlib
from collections.abc import Iterator, Sequence

from mmllm.runtime import prompts
from mmllm.serve import bundles, problems
from mmllm.serve import texts as texts_lib


def language(bundle: bundles.Bundle, wanted: str) -> None:
    """Refuses a language that the model does not speak.

    Raises:
      Problem: "language-unknown", with those it speaks.
    """
    if wanted not in bundle.languages:
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


def texts(bundle: bundles.Bundle, field: str, given: Sequence[str], most: int) -> tuple[str, ...]:
    """Texts to embed, cleaned.

    Raises:
      Problem: none or more than `most` of them, a text that `texts.clean` refuses, or
        "text-too-many-tokens".
    """
    if not given:
        raise problems.Problem("text-empty", field=field)
    if len(given) > most:
        raise problems.Problem("too-many-items", field=field, most=most)
    cleaned = tuple(texts_lib.clean(field, text, prompts.MAX_QUESTION) for text in given)
    for text in cleaned:
        with _tokens_of(field):
            prompts.embedding(bundle.tokenizer, text, bundle.config.max_text)
    return cleaned


@contextlib.contextmanager
def _tokens_of(field: str) -> Iterator[None]:
    """What the model's own check refuses of a cleaned text is its number of tokens."""
    try:
        yield
    except ValueError as error:
        raise problems.Problem("text-too-many-tokens", field=field) from error
