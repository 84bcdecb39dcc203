"""The captions that pictures are compared with in training, and the words around them.

Made from the captions of several corpora by `train.phases.prepare`. The text tower learns from the
same texts, and from WordNet's nouns, which pictures do not show.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mmllm.data import tables
from mmllm.data.lexicons import wordnet
from mmllm.train.text import teacher


def dictionary(words: int) -> list[tuple[str, str]]:
    """WordNet's nouns for things one can draw, with a gloss: several senses first, then short."""
    senses: dict[str, list[str]] = {}
    for lemma, gloss in wordnet.noun_glosses(max_senses=2, categories=wordnet.PICTURABLE):
        senses.setdefault(lemma, []).append(gloss)
    plain = [lemma for lemma in senses if lemma.replace(" ", "").isalpha() and lemma.count(" ") < 2]
    plain.sort(key=lambda lemma: (-len(senses[lemma]), lemma.count(" "), len(lemma), lemma))
    return [(lemma, senses[lemma][0]) for lemma in plain[:words]]


def join(
    captioned: Sequence[tables.CaptionTable], max_residuals: int | None = None
) -> tuple[dict[str, str], list[np.ndarray], dict[tuple[str, str], int]]:
    """Joins the captions of several corpora.

    Args:
      captioned: tables of corpora whose captions are names.
      max_residuals: captions that can have a free vector. Where there are more, the most frequent
        come first, for it is the first that have one; else they stay in the order of the corpora.

    Returns:
      Unique English captions in lower case with their keywords; for each corpus the place in the
      prototypes of each picture's caption; and the place that a (language, caption) stands for.
    """
    prototypes: dict[str, str] = {}
    for table in captioned:
        for text, keywords in zip(table.english, table.keywords, strict=True):
            prototypes.setdefault(text.lower(), ", ".join(keywords.split("|")))
    if max_residuals is not None and len(prototypes) > max_residuals:
        seen = Counter(text.lower() for table in captioned for text in table.english)
        prototypes = dict(sorted(prototypes.items(), key=lambda item: -seen[item[0]]))
    index = {text: place for place, text in enumerate(prototypes)}
    labels, spoken = [], {}
    for table in captioned:
        label = np.array([index[text.lower()] for text in table.english])
        for place, others in zip(label, table.others, strict=True):
            spoken |= {(language, text.lower()): int(place) for language, text in others}
        labels.append(label)
    return prototypes, labels, spoken


def mean_embedding(model: teacher.SentenceTeacher, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Unit mean of the embeddings of "name" and "name: explanation", (n, 384)."""
    names = np.asarray(model.embed([name for name, _ in pairs]))
    full = np.asarray(model.embed([f"{name}: {more}" if more else name for name, more in pairs]))
    total = names + full
    return total / np.linalg.norm(total, axis=1, keepdims=True)
