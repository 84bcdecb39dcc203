"""The token sequences of the tasks: the one place where training and runtime agree on them.

    caption      [<cap:xx>] text <eos>
    question     [<vqa>] question [<ans>] answer <eos>
    text tower   [<emb>] text <eos>

Questions and texts to search are lower-cased, as they were in training; captions keep their case.
"""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Vocabulary(Protocol):
    """What the prompts need of `mmllm.data.tokenizer.Tokenizer`."""

    @property
    def eos_id(self) -> int:
        """Ends every text."""
        ...

    def encode(self, text: str) -> list[int]:
        """Text -> piece ids."""
        ...

    def task_id(self, task: str) -> int:
        """The id that asks for a task."""
        ...


def caption(vocabulary: Vocabulary, language: str) -> list[int]:
    """The decoder's prompt for a caption."""
    return [vocabulary.task_id(f"cap:{language}")]


def question(vocabulary: Vocabulary, text: str) -> list[int]:
    """The decoder's prompt for an answer."""
    body = vocabulary.encode(text.strip().lower())
    return [vocabulary.task_id("vqa"), *body, vocabulary.task_id("ans")]


def embedding(vocabulary: Vocabulary, text: str, most: int | None = None) -> list[int]:
    """The text tower's input; `most` cuts the text to that many tokens."""
    body = vocabulary.encode(text.strip().lower())[:most]
    return [vocabulary.task_id("emb"), *body, vocabulary.eos_id]
