"""One measurement a task: the runtime's answers on a split, scored beside its baselines.

`mmllm.evaluate.benchmark` lists which task runs on which split and stores what these functions
return.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from mmllm.evaluate import baselines
from mmllm.evaluate import corpus as corpus_lib
from mmllm.evaluate.metrics import caption, retrieval, text, vqa
from mmllm.evaluate.metrics.estimate import Estimate, estimate, mean

SAMPLES = 12

Scores = dict[str, Estimate]


@runtime_checkable
class Model(Protocol):
    """What is measured: the batched part of `mmllm.runtime.model.MobileMultiModalLLM`."""

    def caption_batch(self, images: Sequence[Any], language: str) -> list[str]:
        """Captions of pictures in one language."""
        ...

    def read_lines_batch(self, line_images: Sequence[Any]) -> list[str]:
        """Texts of pictures that are one line each."""
        ...

    def answer_batch(self, images: Sequence[Any], questions: Sequence[str]) -> list[str]:
        """Answers to pairs of pictures and questions."""
        ...

    def embed_images(self, images: Sequence[Any]) -> Float[np.ndarray, "b e"]:
        """Unit vectors of pictures."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "b e"]:
        """Unit vectors of texts."""
        ...


@runtime_checkable
class Splits(Protocol):
    """The corpora, and what baselines learn from their training splits."""

    def pictures(self, corpus: str, split: str) -> corpus_lib.Source:
        """Records of a split, with their pictures."""
        ...

    def texts(self, corpus: str, split: str) -> corpus_lib.Source:
        """Records of a split, without their pictures."""
        ...

    def captions(self, corpus: str, split: str = "train") -> list[corpus_lib.Captions]:
        """Captions of every record of a split."""
        ...

    def question_only(self, corpus: str) -> baselines.QuestionOnly:
        """The baseline that answers without the picture."""
        ...

    def neighbours(self, corpus: str) -> baselines.Neighbours | None:
        """The nearest-neighbour baseline; None where it is left out."""
        ...

    def features(self, pictures: list[Any]) -> Float[np.ndarray, "b f"]:
        """Vectors of pictures from a frozen network."""
        ...


@dataclass(frozen=True)
class Row:
    """One line of the benchmark.

    Attributes:
      task: "caption", "retrieval", "lines" or "vqa".
      corpus: name of the corpus.
      split: held-out split of it.
      language: of the captions.
      seen_names: retrieval among this many names of the training split; None takes all names of
        the split.
      most: pictures at most, drawn with a fixed seed; None takes all.
    """

    task: str
    corpus: str
    split: str
    language: str = "en"
    seen_names: int | None = None
    most: int | None = None

    @property
    def name(self) -> str:
        """Task, corpus, split, and the language unless it is English."""
        language = f"/{self.language}" if self.language != "en" else ""
        return f"{self.task}/{self.corpus}/{self.split}{language}"


@dataclass(frozen=True)
class Outcome:
    """Scores of a row: the model's, those of each baseline, and some answers to look at."""

    metrics: Scores
    baselines: dict[str, Scores]
    samples: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def _samples(count: int, describe: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
    return [describe(index) for index in corpus_lib.draw(count, SAMPLES)]


def measure_captions(row: Row, model: Model, splits: Splits) -> Outcome:
    """Captions in the row's language; CIDEr-D, BLEU-4 and keyword hits for English only."""
    source = splits.pictures(row.corpus, row.split)
    memory = splits.neighbours(row.corpus)
    predictions: list[str] = []
    nearest: list[str] = []
    references: list[list[str]] = []
    words: list[list[str]] = []
    ids: list[str] = []
    for part in corpus_lib.batches(corpus_lib.draw(len(source), row.most)):
        pictures: list[Any] = []
        for record in (source[index] for index in part):
            captions = corpus_lib.captions(record).get(row.language, [])
            if captions:  # not every name has a translation
                pictures.append(record["image"])
                references.append(captions)
                words.append(captions + corpus_lib.keywords(record))
                ids.append(str(record["id"]))
        if pictures:
            predictions += model.caption_batch(pictures, row.language)
            if memory is not None:
                nearest += memory.captions(splits.features(pictures), row.language)
    if not ids:
        raise ValueError(f"{row.name}: no picture has a caption in {row.language!r}")

    def scores(answers: list[str]) -> Scores:
        return _caption_scores(answers, references, words, english=row.language == "en")

    known = [text for each in splits.captions(row.corpus) for text in each.get(row.language, [])]
    others = {
        "majority": scores([baselines.majority(known)] * len(predictions)),
        "chance": scores([known[i] for i in baselines.random_places(len(known), len(ids))]),
    }
    if memory is not None:
        others["nearest"] = scores(nearest)
    samples = _samples(
        len(ids),
        lambda i: {"id": ids[i], "prediction": predictions[i], "references": references[i]},
    )
    return Outcome(scores(predictions), others, samples, {"pictures": len(ids)})


def _caption_scores(
    predictions: list[str],
    references: list[list[str]],
    words: list[list[str]],
    *,
    english: bool,
) -> Scores:
    scores = {"exact": mean(caption.exact_match(predictions, references))}
    # Their tokenizer and stop words are English, and so are the corpora's keywords.
    if english:
        scores["cider_d"] = mean(caption.cider_d(predictions, references), unit="points")
        scores["bleu4"] = estimate(
            caption.bleu_statistics(predictions, references).astype(np.float64), caption.bleu4
        )
        scores["keyword_hit"] = mean(caption.keyword_hit(predictions, words))
    return scores


def measure_retrieval(row: Row, model: Model, splits: Splits) -> Outcome:
    """Pictures against a gallery of names, in both directions; every name of a picture counts."""
    labels = [corpus_lib.names(each) for each in splits.captions(row.corpus, row.split)]
    present = {name for each in labels for name in each}
    if row.seen_names is not None:
        seen = {n for each in splits.captions(row.corpus) for n in corpus_lib.names(each)}
        # Names the model was trained on: only the artists are new.
        gallery = corpus_lib.draw_names(present & seen, row.seen_names)
    else:
        gallery = sorted(present)
    targets = set(gallery)
    fitting = [index for index, each in enumerate(labels) if targets & set(each)]
    picked = [fitting[i] for i in corpus_lib.draw(len(fitting), row.most)]
    # A name without a picture could be no right answer, and text to image none at all.
    gallery = [name for name in gallery if name in {n for i in picked for n in labels[i]}]
    column = {name: place for place, name in enumerate(gallery)}
    relevant = np.zeros((len(picked), len(gallery)), bool)
    for line, index in enumerate(picked):
        relevant[line, [column[name] for name in labels[index] if name in column]] = True
    source = splits.pictures(row.corpus, row.split)
    pictures = corpus_lib.in_batches(source, picked, model.embed_images)
    texts = np.concatenate([model.embed_texts(part) for part in corpus_lib.batches(gallery)])
    similarity = pictures @ texts.T
    others = {"chance": _recall(retrieval.chance(relevant), retrieval.chance(relevant.T))}
    memory = splits.neighbours(row.corpus)
    # Of unseen names there is no training picture to be near.
    if memory is not None and memory.knows(gallery):
        features = corpus_lib.in_batches(source, picked, splits.features)
        others["nearest"] = _both_ways(memory.similarity(features, gallery), relevant)

    def describe(line: int) -> dict[str, Any]:
        best = np.argsort(-similarity[line], kind="stable")[:5]
        found = [gallery[place] for place in best]
        record = str(source[picked[line]]["id"])
        return {"id": record, "prediction": found, "references": labels[picked[line]]}

    counts = {"pictures": len(picked), "names": len(gallery)}
    return Outcome(
        _both_ways(similarity, relevant), others, _samples(len(picked), describe), counts
    )


def _both_ways(similarity: Float[np.ndarray, "n m"], relevant: Bool[np.ndarray, "n m"]) -> Scores:
    return _recall(retrieval.hits(similarity, relevant), retrieval.hits(similarity.T, relevant.T))


def _recall(to_text: dict[int, np.ndarray], to_image: dict[int, np.ndarray]) -> Scores:
    return {f"image_to_text_r{k}": mean(values) for k, values in to_text.items()} | {
        f"text_to_image_r{k}": mean(values) for k, values in to_image.items()
    }


def measure_lines(row: Row, model: Model, splits: Splits) -> Outcome:
    """Text lines read one picture at a time; the baseline writes a training line at random."""
    source = splits.pictures(row.corpus, row.split)
    predictions: list[str] = []
    references: list[str] = []
    fonts: list[str] = []
    for part in corpus_lib.batches(corpus_lib.draw(len(source), row.most)):
        records = [source[index] for index in part]
        predictions += model.read_lines_batch([record["image"] for record in records])
        references += [str(record["text"]) for record in records]
        fonts += [str(record["font"]) for record in records]
    known = splits.texts(row.corpus, "train")
    places = baselines.random_places(len(known), len(references))
    guesses = [str(known[place]["text"]) for place in places]
    others = {
        # Silence has a CER of exactly 1: a reader above it had better write nothing.
        "chance": _line_scores(guesses, references, fonts),
        "silence": _line_scores([""] * len(references), references, fonts),
    }
    samples = _samples(
        len(references),
        lambda i: {"font": fonts[i], "prediction": predictions[i], "references": [references[i]]},
    )
    return Outcome(
        _line_scores(predictions, references, fonts),
        others,
        samples,
        {"lines": len(references), "fonts": len(set(fonts))},
    )


def _line_scores(predictions: list[str], references: list[str], fonts: list[str]) -> Scores:
    """Error rates; lines of one font are resampled together, as a font is hard or easy."""
    characters = text.character_errors(predictions, references).astype(np.float64)
    words = text.word_errors(predictions, references).astype(np.float64)
    return {
        "cer": estimate(characters, groups=fonts),
        "wer": estimate(words, groups=fonts),
        "exact": mean(text.exact_lines(predictions, references), groups=fonts),
    }


def measure_answers(row: Row, model: Model, splits: Splits) -> Outcome:
    """Questions about pictures, overall and by kind; questions of one picture stay together."""
    source = splits.pictures(row.corpus, row.split)
    rows: list[tuple[str, str, str, str]] = []  # picture, question, answer, kind
    predictions: list[str] = []
    for part in corpus_lib.batches(corpus_lib.draw(len(source), row.most)):
        pictures: list[Any] = []
        questions: list[str] = []
        for index in part:
            record = source[index]
            for question, answer, kind in corpus_lib.questions(record):
                pictures.append(record["image"])
                questions.append(question)
                rows.append((str(record["id"]), question, answer, kind))
        predictions += model.answer_batch(pictures, questions)
    ids, questions, answers, kinds = (list(column) for column in zip(*rows, strict=True))
    guess = splits.question_only(row.corpus)
    guesses = [guess.answer(q, kind) for q, kind in zip(questions, kinds, strict=True)]
    others = {
        # The name that results have had from the start; tables call it question-only.
        "blind": _answer_scores(guesses, answers, kinds, ids),
        "majority": _answer_scores([guess.overall] * len(answers), answers, kinds, ids),
    }
    samples = _samples(
        len(rows),
        lambda i: {
            "id": ids[i],
            "question": questions[i],
            "prediction": predictions[i],
            "references": [answers[i]],
        },
    )
    counts = {"pictures": len(set(ids)), "questions": len(rows)}
    return Outcome(_answer_scores(predictions, answers, kinds, ids), others, samples, counts)


def _answer_scores(
    predictions: list[str], answers: list[str], kinds: list[str], ids: list[str]
) -> Scores:
    right = vqa.vqa_accuracy(predictions, [[answer] for answer in answers])
    # Drawn together: the answers about one picture are not independent.
    scores = {"accuracy": mean(right, groups=ids)}
    for kind in sorted(set(kinds) - {""}):
        rows = [index for index, each in enumerate(kinds) if each == kind]
        # Under a colon, which keeps kinds out of the headlines.
        scores[f"accuracy:{kind}"] = mean(right[rows], groups=[ids[index] for index in rows])
    return scores


MEASURES: dict[str, Callable[[Row, Model, Splits], Outcome]] = {
    "caption": measure_captions,
    "retrieval": measure_retrieval,
    "lines": measure_lines,
    "vqa": measure_answers,
}
