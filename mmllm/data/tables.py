"""Corpora -> tables of token ids: captions, questions, text lines, and the texts of the text tower.

Stands between the corpora and the training cache; knows no model. Captions and questions longer
than a row are left out and counted, never cut.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from mmllm.common.config import DataConfig
from mmllm.data import images, prompts
from mmllm.data import tokenizer as tokenizer_lib
from mmllm.data.charset import CHARSET
from mmllm.data.tokenizer import Tokenizer

Element = dict[str, Any]

# Names that would crowd out the others: a sixth of the emoji, a fifth of the stamps.
CROWDED = re.compile(r"^flag: |\b(letter|number|sign language)\b", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class CaptionTable:
    """Captions of one corpus, grouped by picture with English first; see `pipeline.Captioned`."""

    ids: np.ndarray
    first: np.ndarray
    english: list[str]  # (pictures,)
    keywords: list[str]  # (pictures,)
    others: list[list[tuple[str, str]]]  # (pictures,) of (language, text), English left out
    weight: np.ndarray


@dataclasses.dataclass(frozen=True)
class QuestionTable:
    """Questions of one corpus; see `pipeline.Questioned`."""

    ids: np.ndarray
    answer: np.ndarray
    picture: np.ndarray
    left_out: int


def _rows(rows: Sequence[Sequence[int]], width: int) -> np.ndarray:
    table = np.zeros((len(rows), width), np.int32)
    for place, ids in enumerate(rows):
        table[place, : len(ids)] = ids
    return table


def captions_of(element: Element) -> list[tuple[str, str]]:
    """(language, text) pairs of a picture in the languages of the model, English first.

    None of a picture without captions, as in a corpus of questions alone.
    """
    if "languages" not in element:
        return [("en", element["caption"])] if "caption" in element else []
    pairs = zip(element["languages"], element["captions"], strict=True)
    known = [(language, text) for language, text in pairs if language in tokenizer_lib.LANGUAGES]
    # A stable sort: the other languages stay in the corpus's order.
    return sorted(known, key=lambda pair: pair[0] != "en")


def caption_table(
    elements: Iterable[Element], tokenizer: Tokenizer, config: DataConfig
) -> CaptionTable:
    """Tokenises the captions of a corpus.

    A picture whose English caption does not fit `data.decoder_tokens` gets weight 0 and no ids.
    """
    ids: list[list[int]] = []
    first, english, keywords, others, weight = [0], [], [], [], []
    for element in elements:
        pairs = captions_of(element)
        if not pairs or pairs[0][0] != "en":
            raise ValueError(
                f"picture {len(weight)} has no English caption, only "
                f"{[language for language, _ in pairs]}; prototypes and search need one"
            )
        rows = [
            [*prompts.caption(tokenizer, language), *tokenizer.encode(text), tokenizer.eos_id]
            for language, text in pairs
        ]
        # A picture that does not fit keeps its place, as features are indexed by the same number.
        fits = len(rows[0]) <= config.decoder_tokens
        if fits:
            ids += [row for row in rows if len(row) <= config.decoder_tokens]
        first.append(len(ids))
        english.append(pairs[0][1])
        keywords.append(element.get("keywords", ""))
        others.append(pairs[1:])
        crowded = CROWDED.search(pairs[0][1]) is not None
        weight.append((config.crowded_weight if crowded else 1.0) if fits else 0.0)
    table = _rows(ids, config.decoder_tokens)
    return CaptionTable(table, np.array(first), english, keywords, others, np.array(weight))


def question_table(
    elements: Iterable[Element], tokenizer: Tokenizer, config: DataConfig
) -> QuestionTable:
    """Tokenises questions with their answers."""
    ids, answer, picture, left_out = [], [], [], 0
    for place, element in enumerate(elements):
        for question, reply in zip(element["questions"], element["answers"], strict=True):
            prompt = prompts.question(tokenizer, question)
            row = [*prompt, *tokenizer.encode(reply), tokenizer.eos_id]
            if len(row) > config.decoder_tokens:
                left_out += 1
                continue
            ids.append(row)
            answer.append(len(prompt) - 1)
            picture.append(place)
    return QuestionTable(
        _rows(ids, config.decoder_tokens), np.array(answer), np.array(picture), left_out
    )


def text_rows(tokenizer: Tokenizer, texts: Iterable[str], length: int) -> np.ndarray:
    """`prompts.embedding` of many texts, cut or padded with 0: (texts, length) int32."""
    # Two fewer, for <emb> and <eos>: a text that is cut still ends.
    return _rows([prompts.embedding(tokenizer, text, length - 2) for text in texts], length)


def line_ids(text: str, length: int) -> list[int]:
    """Characters of a line as CTC classes, index in the charset + 1.

    Raises:
      ValueError: a line that is too long, or a character outside the charset.
    """
    unknown = sorted(set(text) - set(CHARSET))
    if unknown or len(text) > length:
        raise ValueError(f"line {text!r} must have at most {length} characters of the charset")
    return [CHARSET.index(character) + 1 for character in text]


def line_arrays(
    elements: Iterable[Element], count: int, height: int, width: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Text lines as grey pixels (count, height, width) uint8 and their classes (count, length)."""
    pixels = np.empty((count, height, width), np.uint8)
    ids = np.zeros((count, length), np.uint8)  # 95 characters and the blank
    for place, element in enumerate(elements):
        pixels[place] = images.to_line(element["image"], height, width)
        row = line_ids(element["text"], length)
        ids[place, : len(row)] = row
    return pixels, ids


def vocabulary_texts(
    captioned: Iterable[Element],
    questioned: Iterable[Element],
    lines: Iterable[str],
    dictionary: Iterable[tuple[str, str]],
) -> Iterator[str]:
    """All text the vocabulary is trained on: training splits only, and the dictionary."""
    for element in captioned:
        yield from (text for _, text in captions_of(element))
    for element in questioned:
        # As `prompts.question` will write them: upper case would cost pieces and never be seen.
        yield from (question.lower() for question in element["questions"])
        yield from element["answers"]
    yield from lines
    for lemma, gloss in dictionary:
        yield lemma
        yield gloss
