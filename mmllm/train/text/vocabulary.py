"""Which texts the vocabulary of a config is trained on, and what it is called.

`data.vocabulary` keeps it by name; `phases.prepare` asks for it first.
"""

from collections.abc import Callable, Iterator
from typing import Any

from mmllm.common.config import Config
from mmllm.data import registry, sources, tables, vocabulary
from mmllm.train.backbone import feature_cache
from mmllm.train.text import prototype_texts

VOCABULARY_LINES = 20_000  # of each corpus of text lines: more would only repeat the same letters
Report = Callable[[str], None]


def make(config: Config, report: Report = print) -> vocabulary.Vocabulary:
    """Opens the vocabulary of a config; where it is missing, trains it on the mixture's texts.

    Raises:
      FileNotFoundError: a corpus that has not been built.
      ValueError: a vocabulary of another size.
    """
    words, name = config.data.dictionary_words, name_of(config)

    def texts() -> Iterator[str]:
        report(f"training the vocabulary {name!r}")
        return _texts_of(config, prototype_texts.dictionary(words))

    trained_on = {
        "corpora": {name: sources.data_hash(name) for name in registry.mixture(config)},
        "lines": VOCABULARY_LINES,
        "dictionary_words": words,
        "limit": config.data.limit,
    }
    size = config.model.vocab_size
    opened = vocabulary.load_or_train(name, size, texts, trained_on)
    known = opened.trained_on  # empty of a bundle's
    if other := [key for key, value in trained_on.items() if known and known.get(key) != value]:
        report(f"vocabulary {name!r}: trained on other {', '.join(other)}, used as it is")
    return opened


def name_of(config: Config) -> str:
    """The vocabulary of a config; a smoke run, which sees few texts, has one of its own."""
    limit = config.data.limit
    return config.data.vocabulary if limit is None else f"{config.data.vocabulary}-limit{limit}"


def _texts_of(config: Config, words: list[tuple[str, str]]) -> Iterator[str]:
    """All texts of the training splits, and the dictionary."""

    def elements(task: str) -> Iterator[Any]:
        for corpus in registry.of(config, task):
            yield from feature_cache.elements(config, corpus)

    def lines() -> Iterator[str]:
        for corpus in registry.of(config, "line"):
            source = feature_cache.elements(config, corpus)
            yield from (source[i]["text"] for i in range(min(VOCABULARY_LINES, len(source))))

    captioned = (
        element
        for corpus in registry.captioned(config)
        for element in feature_cache.elements(config, corpus)
    )
    return tables.vocabulary_texts(captioned, elements("question"), lines(), words)
