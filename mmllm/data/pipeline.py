"""Training arrays -> batches: one grain dataset whose element i is the whole batch of step i.

Each batch is drawn from a generator seeded with (seed, step), so the order is the same whatever the
number of workers, and resuming needs nothing but the step. The mixture over tasks is the number of
examples of each task in a step (`cfg.mix`). Several texts about one picture share a row.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import grain
import numpy as np
from jaxtyping import Int

from mmllm.common.config import Config
from mmllm.data import transforms

Batch = dict[str, np.ndarray]
NO_LABEL = -1


@dataclasses.dataclass(frozen=True)
class Captioned:
    """Pictures with captions, as stem features of several augmented views."""

    features: Sequence[np.ndarray]  # per view: (pictures, grid, grid, channels) float16
    ids: np.ndarray  # (captions, tokens) int32: [<cap:xx>] text <eos>, padded with 0
    # (pictures + 1,): captions of picture i are ids[first[i] : first[i + 1]], English first.
    first: np.ndarray
    label: (
        np.ndarray
    )  # (pictures,) index of the picture's English caption in the prototypes, or NO_LABEL
    weight: np.ndarray  # (pictures,) sampling weight


@dataclasses.dataclass(frozen=True)
class Questioned:
    """Questions about pictures."""

    features: Sequence[np.ndarray]  # per view: (pictures, grid, grid, channels) float16
    ids: np.ndarray  # (questions, tokens) int32: [<vqa>] question [<ans>] answer <eos>
    answer: np.ndarray  # (questions,) index of the <ans> token: the loss starts there
    picture: np.ndarray  # (questions,)


@dataclasses.dataclass(frozen=True)
class Lines:
    """Grey text lines of the fixed size."""

    pixels: np.ndarray  # (lines, height, width) uint8
    ids: np.ndarray  # (lines, characters) int32, index in the charset + 1, padded with 0


@dataclasses.dataclass(frozen=True)
class Texts:
    """Text for the text tower: captions of the prototypes in every language, and dictionary words."""

    ids: np.ndarray  # (texts, tokens) int32: [<emb>] text <eos>
    label: np.ndarray  # (texts,) index in the prototypes, or NO_LABEL for a dictionary word
    weight: np.ndarray  # (texts,) sampling weight among the captions; unused for words
    teacher: np.ndarray  # (texts, 384) float16 sentence embedding; zero for captions
    prototype_sentences: (
        np.ndarray
    )  # (prototypes, 384) float16 sentence embedding of each English caption


@dataclasses.dataclass(frozen=True)
class TrainingArrays:
    """Everything a training run reads, memory-mapped where it is large."""

    emoji: Captioned
    stamps: Captioned
    composites: Captioned
    composites_vqa: Questioned
    easy_vqa: Questioned
    lines: Lines
    texts: Texts


class Rows(NamedTuple):
    """Rows of packed texts.

    Attributes:
      ids: token ids, padded with 0.
      start: the column where the token's text begins; of padding, its own column.
      first: the column of the token from which on its text has a loss.
    """

    ids: Int[np.ndarray, "n t"]
    start: Int[np.ndarray, "n t"]
    first: Int[np.ndarray, "n t"]


def pack(
    texts: Sequence[Sequence[np.ndarray]], firsts: Sequence[Sequence[int]], width: int
) -> Rows:
    """Lays the texts of each row one behind the other; one that no longer fits is left out.

    So of the texts behind the first of a row, short ones are seen more often than long ones.

    Args:
      texts: per row, token ids of each text, padded with 0, in order of preference.
      firsts: per row and text, the place of the token from which on it has a loss.
      width: tokens of a row.
    """
    ids = np.zeros((len(texts), width), np.int32)
    start = np.tile(np.arange(width, dtype=np.int32), (len(texts), 1))
    first = start.copy()
    for row, (wanted, places) in enumerate(zip(texts, firsts, strict=True)):
        column = 0
        for text, place in zip(wanted, places, strict=True):
            stop = column + np.count_nonzero(text)
            if stop > width:
                continue
            ids[row, column:stop] = text[: stop - column]
            start[row, column:stop] = column
            first[row, column:stop] = column + place
            column = stop
    return Rows(ids, start, first)


def targets(rows: Rows, room: int) -> Batch:
    """The tokens of rows, and the next-token targets among them, flattened over the batch.

    Returns:
      ids and start of `rows`; position (room,): index into the flattened (rows * tokens) hidden
      states; target (room,): the next token; target_weight (room,): 1 for a real target, 0 for
      padding; target_row (room,).

    Raises:
      ValueError: more targets than room.
    """
    ids, start, first = rows
    column = np.arange(ids.shape[1] - 1)[None]
    wanted = (column >= first[:, :-1]) & (start[:, 1:] == start[:, :-1]) & (ids[:, 1:] != 0)
    row, place = np.nonzero(wanted)
    if len(row) > room:
        raise ValueError(
            f"data.answer_tokens leaves room for {room} targets a step, got {len(row)}: raise it"
        )
    fill = (0, room - len(row))
    return {
        "ids": ids,
        "start": start,
        "position": np.pad(row * ids.shape[1] + place, fill).astype(np.int32),
        "target": np.pad(ids[row, place + 1], fill).astype(np.int32),
        "target_weight": np.pad(np.ones(len(row), np.float32), fill),
        "target_row": np.pad(row, fill).astype(np.int32),
    }


def _features(
    source: Captioned | Questioned, picture: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    view = rng.integers(0, len(source.features), len(picture))
    return np.stack([source.features[v][p] for v, p in zip(view, picture, strict=True)])


def draw_captioned(
    source: Captioned, count: int, width: int, rng: np.random.Generator
) -> np.ndarray:
    """Pictures drawn by weight, of those whose English caption has at most `width` tokens."""
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
        return {
            **self._pictures(rng),
            **self._names(rng),
            **self._spoken(rng),
            **self._lines(rng),
            **self._texts(rng),
        }

    def _pictures(self, rng: np.random.Generator) -> Batch:
        mix, data, arrays = self.config.mix, self.config.data, self.arrays
        features, label = [arrays.emoji.features[0][:0]], [np.zeros(0, int)]
        texts: list[list[np.ndarray]] = []
        firsts: list[list[int]] = []
        for captioned, count in (
            (arrays.emoji, mix.emoji),
            (arrays.stamps, mix.stamps),
            (arrays.composites, mix.composites),
        ):
            if count:
                picture = draw_captioned(captioned, count, data.row_tokens, rng)
                captions = captions_of(captioned, picture, rng)
                texts += captions
                firsts += _without_question(captions)
                features.append(_features(captioned, picture, rng))
                label.append(captioned.label[picture])
        for asked, count in (
            (arrays.composites_vqa, mix.composites_vqa),
            (arrays.easy_vqa, mix.easy_vqa),
        ):
            if count:
                # Each question comes first equally often; others about its picture fill the row.
                question = rng.integers(0, len(asked.picture), count)
                picture = asked.picture[question]
                for one, about in zip(question, picture, strict=True):
                    rest = np.nonzero(asked.picture == about)[0]
                    order = [one, *rng.permutation(rest[rest != one])]
                    texts.append(list(asked.ids[order]))
                    firsts.append(asked.answer[order].tolist())
                features.append(_features(asked, picture, rng))
                label.append(np.full(count, NO_LABEL))
        room = mix.captioned * (data.row_tokens - 1)
        room += (mix.pictures - mix.captioned) * data.answer_tokens
        return {
            "features": np.concatenate(features),
            "label": np.concatenate(label).astype(np.int32),
            **targets(pack(texts, firsts, data.row_tokens), room),
        }

    def _names(self, rng: np.random.Generator) -> Batch:
        """More pictures of the prototypes's names, each with its English caption and what fits beside."""
        mix, width = self.config.mix, self.config.data.name_tokens
        if not mix.names:
            return {}
        emoji, stamps = self.arrays.emoji, self.arrays.stamps
        drawn = int(mix.names * emoji.weight.sum() / (emoji.weight.sum() + stamps.weight.sum()))
        features, texts, label = [], [], []
        for source, count in ((emoji, drawn), (stamps, mix.names - drawn)):
            if count:
                picture = draw_captioned(source, count, width, rng)
                features.append(_features(source, picture, rng))
                texts += captions_of(source, picture, rng)
                label.append(source.label[picture])
        rows = pack(texts, _without_question(texts), width)
        return {
            "name_features": np.concatenate(features),
            "name_label": np.concatenate(label).astype(np.int32),
            **_prefixed("name_", targets(rows, mix.names * (width - 1))),
        }

    def _spoken(self, rng: np.random.Generator) -> Batch:
        """Names without a picture, each drawn equally often, in English and other languages."""
        mix, width = self.config.mix, self.config.data.row_tokens
        if not mix.spoken:
            return {}
        sources = (self.arrays.emoji, self.arrays.stamps)
        label = np.concatenate([source.label for source in sources])
        usable = np.concatenate([source.weight for source in sources]) > 0
        weight = usable / np.maximum(np.bincount(label, usable), 1)[label]
        pick = rng.choice(len(weight), mix.spoken, p=weight / weight.sum())
        before, texts = len(sources[0].label), []
        for place in pick:
            source, place = (sources[0], place) if place < before else (sources[1], place - before)
            texts += captions_of(source, np.array([place]), rng)
        rows = pack(texts, _without_question(texts), width)
        return {
            "spoken_label": label[pick].astype(np.int32),
            **_prefixed("spoken_", targets(rows, mix.spoken * (width - 1))),
        }

    def _lines(self, rng: np.random.Generator) -> Batch:
        source = self.arrays.lines
        pick = rng.integers(0, len(source.ids), self.config.mix.lines)
        ids = source.ids[pick].astype(np.int32)
        return {"lines": transforms.augment_line(source.pixels[pick], rng), "line_ids": ids}

    def _texts(self, rng: np.random.Generator) -> Batch:
        return draw_texts(self.arrays.texts, self.config.mix.texts, rng)


def _prefixed(kind: str, batch: Batch) -> Batch:
    return {f"{kind}{name}": value for name, value in batch.items()}


def draw_texts(source: Texts, count: int, rng: np.random.Generator) -> Batch:
    """Half captions of the prototypes, drawn by weight, and half dictionary words."""
    words = np.nonzero(source.label < 0)[0]
    half = count // 2
    weight = np.where(source.label >= 0, source.weight, 0.0)
    captions = rng.choice(len(weight), half, p=weight / weight.sum())
    pick = np.concatenate([captions, rng.choice(words, count - half)])
    return {
        "texts": source.ids[pick].astype(np.int32),
        "text_label": source.label[pick].astype(np.int32),
        "text_teacher": source.teacher[pick],
    }


def batches(config: Config, arrays: TrainingArrays) -> grain.DatasetIterator:
    """An endless, checkpointable iterator of batches, built `train.prefetch` steps ahead."""
    dataset = (
        grain.MapDataset.range(1).repeat().seed(config.seed).random_map(BuildBatch(config, arrays))
    )
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=config.train.prefetch)
    return iter(dataset.to_iter_dataset(options))
