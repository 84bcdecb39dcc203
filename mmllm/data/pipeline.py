"""Training arrays -> batches: one grain dataset whose element i is the whole batch of step i.

Each batch is drawn from a generator seeded with (seed, step), so the order is the same whatever the
number of workers, and resuming needs nothing but the step. How many examples of each task a step
has is `cfg.batch`; which corpora give them is `cfg.mix`. Several texts about one picture share a
row. A task without examples has no key in the batch.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np

from mmllm.common.config import Config
from mmllm.data import registry, transforms
from mmllm.data.rows import pack, targets

Batch = dict[str, np.ndarray]
NO_LABEL = -1
LABELS = ("label", "name_label", "spoken_label", "text_label")  # places among the prototypes


@dataclasses.dataclass(frozen=True)
class Captioned:
    """Pictures with captions, as backbone features of several augmented views.

    Attributes:
      features: per view (pictures, grid, grid, channels) float16, the plain one first.
      ids: (captions, tokens) int32: [<cap:xx>] text <eos>, padded with 0.
      first: (pictures + 1,): the captions of picture i are ids[first[i] : first[i + 1]], English
        first.
      label: (pictures,) place of the English caption among the prototypes, or NO_LABEL.
      weight: (pictures,) sampling weight.
    """

    features: Sequence[np.ndarray]
    ids: np.ndarray
    first: np.ndarray
    label: np.ndarray
    weight: np.ndarray


@dataclasses.dataclass(frozen=True)
class Questioned:
    """Questions about pictures.

    Attributes:
      features: as in `Captioned`.
      ids: (questions, tokens) int32: [<vqa>] question [<ans>] answer <eos>.
      answer: (questions,) index of the <ans> token: the loss starts there.
      picture: (questions,).
    """

    features: Sequence[np.ndarray]
    ids: np.ndarray
    answer: np.ndarray
    picture: np.ndarray


@dataclasses.dataclass(frozen=True)
class Lines:
    """Grey text lines of the fixed size.

    Attributes:
      pixels: (lines, height, width) uint8.
      ids: (lines, characters) int32, index in the charset + 1, padded with 0.
    """

    pixels: np.ndarray
    ids: np.ndarray


@dataclasses.dataclass(frozen=True)
class Texts:
    """What the text tower reads: captions of the prototypes in every language, then words.

    Attributes:
      ids: (texts, tokens) int32: [<emb>] text <eos>; the dictionary words stand last.
      label: (texts,) place among the prototypes, or NO_LABEL for a dictionary word.
      weight: (texts,) sampling weight among the captions; unused for words.
      teacher: (words, 384) float16 sentence embedding of each dictionary word. Captions have none
        here: theirs are the prototypes', and 600,000 rows of zeros would take 461 MB.
      prototype_sentences: (prototypes, 384) float16 sentence embedding of each English caption.
    """

    ids: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    teacher: np.ndarray
    prototype_sentences: np.ndarray


@dataclasses.dataclass(frozen=True)
class TrainingArrays:
    """Everything a training run reads, memory-mapped where it is large; corpora by name."""

    captioned: Mapping[str, Captioned]
    questioned: Mapping[str, Questioned]
    lines: Mapping[str, Lines]
    texts: Texts

    @property
    def plain_features(self) -> np.ndarray | None:
        """Features of the unaugmented pictures of the first corpus; None where none has any."""
        sources: list[Captioned | Questioned] = [*self.captioned.values()]
        sources += self.questioned.values()
        return sources[0].features[0] if sources else None


def _features(
    source: Captioned | Questioned, picture: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    # The plain view is among those drawn: it is all that the runtime shows the model.
    view = rng.integers(0, len(source.features), len(picture))
    return np.stack([source.features[v][p] for v, p in zip(view, picture, strict=True)])


def draw_captioned(
    source: Captioned, count: int, width: int, rng: np.random.Generator
) -> np.ndarray:
    """Pictures drawn by weight, of those whose English caption has at most `width` tokens."""
    # A picture without a caption that fits has no ids: at the end of the corpus its `first` lies
    # behind the last row. Its weight is 0 already.
    english = np.minimum(source.first[:-1], len(source.ids) - 1)
    weight = source.weight * ~source.ids[english, width:].any(axis=1)
    if not weight.any():
        raise ValueError(
            f"no caption has at most {width} tokens; raise data.name_tokens and data.row_tokens"
        )
    return rng.choice(len(weight), count, p=weight / weight.sum())


def captions_of(
    source: Captioned, picture: np.ndarray, rng: np.random.Generator
) -> list[list[np.ndarray]]:
    """The captions of each picture: English first, then the other languages in any order."""
    texts = []
    for start, stop in zip(source.first[picture], source.first[picture + 1], strict=True):
        # English is never the one that does not fit: it is the caption the label stands for.
        others = start + 1 + rng.permutation(stop - start - 1)
        texts.append([source.ids[start], *source.ids[others]])
    return texts


def _without_question(texts: Sequence[Sequence[np.ndarray]]) -> list[list[int]]:
    return [[0] * len(row) for row in texts]


@dataclasses.dataclass(frozen=True)
class BuildBatch(grain.transforms.RandomMap):
    """Step number + generator -> the batch of that step."""

    config: Config
    arrays: TrainingArrays

    # pyrefly: ignore[bad-override]  # The abstract method has no return type, so None is inferred.
    def random_map(self, element: Any, rng: np.random.Generator) -> Batch:
        del element  # The generator is already the step's own.
        # All parts draw from one generator, so their order is part of what a seed means.
        batch = {
            **self._pictures(rng),
            **self._names(rng),
            **self._spoken(rng),
            **self._lines(rng),
            **self._texts(rng),
        }
        negatives = self.config.prototypes.negatives
        if not negatives:
            return batch
        return sample_prototypes(batch, self.arrays.texts.prototype_sentences, negatives, rng)

    def _pictures(self, rng: np.random.Generator) -> Batch:
        """Pictures that pass the encoder: the captioned ones first, then those with questions."""
        config, data = self.config, self.config.data
        if not config.batch.pictures:
            return {}
        features, label = [], []
        texts: list[list[np.ndarray]] = []
        firsts: list[list[int]] = []
        for captioned, count in self._shared(self.arrays.captioned, "caption", "captions"):
            picture = draw_captioned(captioned, count, data.row_tokens, rng)
            captions = captions_of(captioned, picture, rng)
            texts += captions
            firsts += _without_question(captions)
            features.append(_features(captioned, picture, rng))
            label.append(captioned.label[picture])
        for questioned, count in self._shared(self.arrays.questioned, "question", "questions"):
            # Each question comes first equally often; others about its picture fill the row.
            question = rng.integers(0, len(questioned.picture), count)
            picture = questioned.picture[question]
            for one, about in zip(question, picture, strict=True):
                rest = np.nonzero(questioned.picture == about)[0]
                order = [one, *rng.permutation(rest[rest != one])]
                texts.append(list(questioned.ids[order]))
                firsts.append(questioned.answer[order].tolist())
            features.append(_features(questioned, picture, rng))
            # A scene of several things has no single name to be found by.
            label.append(np.full(count, NO_LABEL))
        # A row of captions may be all targets. Questions have no loss, so their rows share less.
        room = config.batch.captions * (data.row_tokens - 1)
        room += config.batch.questions * data.answer_tokens
        return {
            "features": np.concatenate(features),
            "label": np.concatenate(label).astype(np.int32),
            **targets(pack(texts, firsts, data.row_tokens), room),
        }

    def _shared(self, sources: Mapping[str, Any], task: str, field: str) -> list[tuple[Any, int]]:
        """The corpora of a task with the examples each gives to a step, where it gives any."""
        found = registry.counts(self.config, task, getattr(self.config.batch, field))
        return [(sources[name], count) for name, count in found.items() if count]

    def _named(self) -> list[Captioned]:
        return [self.arrays.captioned[name] for name in registry.of(self.config, "name")]

    def _names(self, rng: np.random.Generator) -> Batch:
        """More pictures with names, each with its English caption and what fits beside."""
        total, width = self.config.batch.names, self.config.data.name_tokens
        if not total:
            return {}
        features, texts, label, before = [], [], [], 0
        sources = self._named()
        # Each picture is drawn equally often, whatever the weight of its corpus in the mixture:
        # here it is the names that matter, and a corpus has as many as it has pictures.
        weights = [source.weight.sum() for source in sources]
        for place, source in enumerate(sources, 1):
            # Differences of rounded sums, so that the shares add up to `total`.
            upto = int(total * sum(weights[:place]) / sum(weights))
            count, before = upto - before, upto
            if count:
                picture = draw_captioned(source, count, width, rng)
                features.append(_features(source, picture, rng))
                texts += captions_of(source, picture, rng)
                label.append(source.label[picture])
        rows = pack(texts, _without_question(texts), width)
        # Room for the worst case: with shapes that never change, a step compiles once.
        return {
            "name_features": np.concatenate(features),
            "name_label": np.concatenate(label).astype(np.int32),
            **_prefixed("name_", targets(rows, total * (width - 1))),
        }

    def _spoken(self, rng: np.random.Generator) -> Batch:
        """Names without a picture, each drawn equally often, in English and other languages."""
        total, width = self.config.batch.spoken, self.config.data.row_tokens
        if not total:
            return {}
        sources = self._named()
        label = np.concatenate([source.label for source in sources])
        usable = np.concatenate([source.weight for source in sources]) > 0
        # One over the pictures of a name, so that a name with many pictures counts once.
        weight = usable / np.maximum(np.bincount(label, usable), 1)[label]
        pick = rng.choice(len(weight), total, p=weight / weight.sum())
        first = np.cumsum([0, *(len(source.label) for source in sources)])
        texts = []
        for place in pick:
            # "right": the first picture of a corpus is its own, not the last of the one before.
            number = np.searchsorted(first, place, "right") - 1
            texts += captions_of(sources[number], np.array([place - first[number]]), rng)
        rows = pack(texts, _without_question(texts), width)
        return {
            "spoken_label": label[pick].astype(np.int32),
            **_prefixed("spoken_", targets(rows, total * (width - 1))),
        }

    def _lines(self, rng: np.random.Generator) -> Batch:
        pixels, ids = [], []
        for source, count in self._shared(self.arrays.lines, "line", "lines"):
            pick = rng.integers(0, len(source.ids), count)
            ids.append(source.ids[pick].astype(np.int32))
            # Here and not in the cache: a line is small, and is new in every step.
            pixels.append(transforms.augment_line(source.pixels[pick], rng))
        if not ids:
            return {}
        return {"lines": np.concatenate(pixels), "line_ids": np.concatenate(ids)}

    def _texts(self, rng: np.random.Generator) -> Batch:
        count = self.config.batch.texts
        return draw_texts(self.arrays.texts, count, rng) if count else {}


def _prefixed(kind: str, batch: Batch) -> Batch:
    return {f"{kind}{name}": value for name, value in batch.items()}


def draw_texts(source: Texts, count: int, rng: np.random.Generator) -> Batch:
    """Half captions of the prototypes, drawn by weight, and half dictionary words."""
    known = len(source.ids) - len(source.teacher)
    # Captions teach the known names; words, with the teacher's embeddings, the names that no
    # picture shows.
    half = count // 2 if len(source.teacher) else count
    weight = np.where(source.label >= 0, source.weight, 0.0)
    captions = rng.choice(len(weight), half, p=weight / weight.sum())
    words = rng.choice(np.arange(known, len(source.ids)), count - half) if half < count else []
    # An empty list of words makes floats of the places.
    pick = np.concatenate([captions, words]).astype(int)
    teacher = np.zeros((count, source.teacher.shape[1]), source.teacher.dtype)
    teacher[half:] = source.teacher[pick[half:] - known]
    return {
        "texts": source.ids[pick].astype(np.int32),
        "text_label": source.label[pick].astype(np.int32),
        "text_teacher": teacher,
    }


def sample_prototypes(
    batch: Batch, sentences: np.ndarray, negatives: int, rng: np.random.Generator
) -> Batch:
    """Gives a batch the few prototypes that its step compares with, in the place of all.

    They are the captions of the batch's own labels and `negatives` drawn uniformly, each once. A
    caption drawn that is also somebody's label is thus no second, wrong column for it: there are no
    accidental hits to mask. A uniform draw needs no correction of the logits, since the same
    log-probability would be taken from each (Jean et al., 2015, "On using very large target
    vocabulary", section 3).

    Args:
      batch: of a step, with labels among all captions.
      sentences: (captions, 384), all of them, memory-mapped: only the rows drawn are read.
      negatives: captions drawn.
      rng: where chance comes from.

    Returns:
      The batch with its labels as places among its own prototypes, and "prototype_place": where
      these are among all, NO_LABEL for padding; "prototype_sentences": their rows. There are
      `negatives` + labels of both, so that a step compiles once.
    """
    labels = {name: batch[name] for name in LABELS if name in batch}
    own = np.concatenate([*labels.values(), np.zeros(0, np.int32)])
    drawn = rng.integers(0, len(sentences), negatives)
    # Sorted, as `searchsorted` needs them.
    found = np.unique(np.concatenate([own[own != NO_LABEL], drawn]))
    place = np.full(negatives + len(own), NO_LABEL, np.int32)
    place[: len(found)] = found
    rows = np.zeros((len(place), sentences.shape[1]), sentences.dtype)
    rows[: len(found)] = sentences[found]
    moved = {
        name: np.where(label == NO_LABEL, label, np.searchsorted(found, label)).astype(np.int32)
        for name, label in labels.items()
    }
    return {**batch, **moved, "prototype_place": place, "prototype_sentences": rows}


def batches(config: Config, arrays: TrainingArrays) -> grain.DatasetIterator:
    """An endless, checkpointable iterator of batches, built `train.prefetch` steps ahead.

    Raises:
      ValueError: a batch that the mixture of the config cannot fill.
    """
    registry.check(config)
    # One element for ever: grain gives each repetition a generator of its own, by seed and step.
    dataset = (
        grain.MapDataset.range(1).repeat().seed(config.seed).random_map(BuildBatch(config, arrays))
    )
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=config.train.prefetch)
    return iter(dataset.to_iter_dataset(options))
