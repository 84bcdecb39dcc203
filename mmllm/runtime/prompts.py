"""Checks what people type and turns it into token prompts for the decoder and the text tower."""

import unicodedata
from collections.abc import Sequence

from mmllm.data import prompts
from mmllm.data.prompts import Vocabulary, caption

__all__ = ["caption", "checked_language", "checked_text", "embedding", "question"]

MAX_QUESTION = 500
"""Characters of a question or a search text."""

MIN_ANSWER_ROOM = 8
"""Tokens a question must leave free for its answer."""


def checked_text(argument: str, text: str) -> str:
    """Returns the text with its white space tidied.

    Raises:
      TypeError: not a string.
      ValueError: empty, longer than MAX_QUESTION characters, or with control characters in it.
    """
    if not isinstance(text, str):
        raise TypeError(f"{argument} must be a string, got {type(text).__name__}")
    # First of all: what follows looks at every character.
    if len(text) > MAX_QUESTION:
        raise ValueError(
            f"{argument} must have at most {MAX_QUESTION} characters, got {len(text)}; shorten it"
        )
    text = " ".join(text.split())
    if not text:
        raise ValueError(f"{argument} must not be empty; write a few words")
    for character in text:
        # Lone surrogates (Cs) are no UTF-8, which the tokenizer takes.
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise ValueError(
                f"{argument} must not contain control characters, "
                f"got U+{ord(character):04X}; remove it"
            )
    return text


def checked_language(language: str, languages: Sequence[str]) -> str:
    """Returns the language if the model speaks it.

    Raises:
      ValueError: a language the model was not trained on; the message lists those it was.
    """
    if language not in languages:
        raise ValueError(f"language must be one of {', '.join(languages)}, got {language!r}")
    return language


def question(vocabulary: Vocabulary, text: str, max_text: int) -> list[int]:
    """The decoder's prompt for a question that people typed.

    Raises:
      ValueError: see `checked_text`; or more tokens than leave room for an answer.
    """
    ids = prompts.question(vocabulary, checked_text("question", text))
    limit = max_text - MIN_ANSWER_ROOM
    # Told without the two tokens around the text, which nobody typed.
    if len(ids) > limit:
        raise ValueError(
            f"question must have at most {limit - 2} tokens, got {len(ids) - 2}; shorten it"
        )
    return ids


def embedding(vocabulary: Vocabulary, text: str, max_text: int) -> list[int]:
    """The text tower's input for a text that people typed.

    Raises:
      ValueError: see `checked_text`; or more tokens than the model holds.
    """
    ids = prompts.embedding(vocabulary, checked_text("text", text))
    if len(ids) > max_text:
        raise ValueError(
            f"text must have at most {max_text - 2} tokens, got {len(ids) - 2}; shorten it"
        )
    return ids
