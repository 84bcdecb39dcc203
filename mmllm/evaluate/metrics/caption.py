"""CIDEr-D, BLEU-4, exact match and keyword hits for captions, in plain Python.

Strings come from the runtime, references from the corpora; `mmllm.evaluate.tasks` calls these.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int

from mmllm.evaluate.metrics.tokenize import tokenize

CIDER_ORDERS = 4
CIDER_SIGMA = 6.0
CIDER_SCALE = 10.0
BLEU_ORDERS = 4
# Articles and prepositions of the names: two captions that share only these share nothing.
STOP_WORDS = frozenset("a an and at by for from in is it its of on or s the to up with 's".split())

Ngram = tuple[str, ...]


def _ngrams(tokens: Sequence[str], orders: int) -> list[Counter[Ngram]]:
    """Counts of n-grams, one counter an order from 1 up."""
    return [
        Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
        for n in range(1, orders + 1)
    ]


def _check_parallel(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(predictions) != len(references):
        raise ValueError(
            f"predictions and references must be parallel, got {len(predictions)} and "
            f"{len(references)}"
        )
    for index, options in enumerate(references):
        if isinstance(options, str):
            raise TypeError(f"references[{index}] must be a sequence of captions, got one string")
        if not options:
            raise ValueError(f"references[{index}] is empty: every picture needs a reference")


class _Weights:
    """tf-idf weights of n-grams; document frequencies are counted over pictures."""

    def __init__(self, corpus: Iterable[Sequence[Sequence[str]]]) -> None:
        self._frequency: Counter[Ngram] = Counter()
        pictures = 0
        for captions in corpus:
            pictures += 1
            self._frequency.update(
                {gram for tokens in captions for counts in _ngrams(tokens, CIDER_ORDERS)
                 for gram in counts}
            )  # fmt: skip
        self._log_pictures = math.log(pictures)

    def vector(self, tokens: Sequence[str]) -> list[dict[Ngram, float]]:
        return [
            {
                # An n-gram that no reference has weighs as one that a single picture has.
                gram: count * (self._log_pictures - math.log(max(1, self._frequency[gram])))
                for gram, count in counts.items()
            }
            for counts in _ngrams(tokens, CIDER_ORDERS)
        ]


def _norm(vector: dict[Ngram, float]) -> float:
    return math.sqrt(sum(weight * weight for weight in vector.values()))


def _similarity(
    candidate: Sequence[dict[Ngram, float]], reference: Sequence[dict[Ngram, float]]
) -> float:
    """Mean over the orders of the cosine with clipped counts, before the length penalty."""
    total = 0.0
    for ours, theirs in zip(candidate, reference, strict=True):
        norms = _norm(ours) * _norm(theirs)
        if norms:  # a short caption has no n-grams of the higher orders
            total += (
                # Clipped, the "D" of CIDEr-D: repeating a good word gains nothing.
                sum(min(w, theirs[g]) * theirs[g] for g, w in ours.items() if g in theirs) / norms
            )
    return total / CIDER_ORDERS


def cider_d(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    corpus: Sequence[Sequence[str]] | None = None,
) -> Float[np.ndarray, "n"]:
    """CIDEr-D of each prediction, with sigma 6, n-grams of 1 to 4 words and the factor 10.

    A perfect caption of k < 4 words scores 2.5 * k, not 10, as it has no longer n-grams: a mean
    over short captions has its ceiling there.

    Args:
      predictions: one caption a picture.
      references: one or more captions a picture.
      corpus: captions by picture from which document frequencies are taken; None takes the
        references. With a single picture every weight, hence every score, is 0.

    Returns:
      Scores from 0 to 10; the corpus score is their mean (published tables print it times 10).

    Raises:
      ValueError: sequences that are not parallel, or a picture without reference.

    Source: Vedantam et al. 2015, arXiv:1411.5726, section 5; coco-caption's CIDEr-D.
    """
    _check_parallel(predictions, references)
    tokenized = [[tokenize(caption) for caption in options] for options in references]
    frequencies = (
        tokenized if corpus is None else [[tokenize(text) for text in each] for each in corpus]
    )
    if not frequencies:
        return np.zeros(0)
    weights = _Weights(frequencies)
    scores = np.zeros(len(predictions))
    for index, (prediction, options) in enumerate(zip(predictions, tokenized, strict=True)):
        words = tokenize(prediction)
        vector = weights.vector(words)
        for tokens in options:
            # Lengths in bigrams, as the reference program counts them.
            gap = max(len(words) - 1, 0) - max(len(tokens) - 1, 0)
            penalty = math.exp(-(gap**2) / (2 * CIDER_SIGMA**2))
            scores[index] += penalty * _similarity(vector, weights.vector(tokens)) / len(options)
    return CIDER_SCALE * scores


def bleu_statistics(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> Int[np.ndarray, "n 10"]:
    """Counts whose sums give corpus BLEU-4.

    Returns:
      For each caption: matched n-grams of order 1 to 4, n-grams of order 1 to 4, words of the
      prediction, words of the reference nearest in length (the shorter of two equally near).

    Raises:
      ValueError: sequences that are not parallel, or a picture without reference.
    """
    _check_parallel(predictions, references)
    rows = []
    for prediction, options in zip(predictions, references, strict=True):
        words = tokenize(prediction)
        tokenized = [tokenize(caption) for caption in options]
        best: list[Counter[Ngram]] = [Counter() for _ in range(BLEU_ORDERS)]
        for tokens in tokenized:
            # `|` takes the larger count: a word may match as often as in one reference.
            best = [a | b for a, b in zip(best, _ngrams(tokens, BLEU_ORDERS), strict=True)]
        ours = _ngrams(words, BLEU_ORDERS)
        matched = [(a & b).total() for a, b in zip(ours, best, strict=True)]
        nearest = min((abs(len(tokens) - len(words)), len(tokens)) for tokens in tokenized)[1]
        rows.append([*matched, *(counts.total() for counts in ours), len(words), nearest])
    return np.array(rows, np.int64).reshape(len(rows), 2 * BLEU_ORDERS + 2)


def bleu4(sums: Float[np.ndarray, "10"] | Int[np.ndarray, "10"]) -> float:
    """Corpus BLEU-4 from summed `bleu_statistics`: 0 to 1, unsmoothed, 0 without any 4-gram match.

    Source: Papineni et al. 2002, ACL P02-1040.
    """
    matched, total, (words, target) = sums[:4], sums[4:8], sums[8:]
    if not np.all(matched > 0):
        return 0.0
    log_precision = float(np.mean(np.log(np.asarray(matched) / np.asarray(total))))
    return math.exp(log_precision + min(0.0, 1 - float(target) / float(words)))


def plain(text: str) -> str:
    """Lower case, single spaces, no spaces around: the form in which captions are compared."""
    return " ".join(text.lower().split())


def exact_match(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> Float[np.ndarray, "n"]:
    """1 where the prediction equals one of the references up to case and spaces, else 0."""
    _check_parallel(predictions, references)
    return np.array(
        [
            float(plain(prediction) in {plain(option) for option in options})
            for prediction, options in zip(predictions, references, strict=True)
        ]
    )


def content_words(text: str) -> set[str]:
    """Words of a caption that carry meaning: no stop words, no bare symbols."""
    return {word for word in tokenize(text) if word not in STOP_WORDS and word[0].isalnum()}


def keyword_hit(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> Float[np.ndarray, "n"]:
    """1 where the prediction shares a content word with the captions or keywords of the picture.

    Args:
      predictions: one caption a picture.
      references: captions and keywords of each picture.

    Returns:
      0 or 1 a picture: whether the caption is about the right thing, for unseen names that cannot
      be matched word by word.
    """
    _check_parallel(predictions, references)
    return np.array(
        [
            float(any(content_words(prediction) & content_words(option) for option in options))
            for prediction, options in zip(predictions, references, strict=True)
        ]
    )
