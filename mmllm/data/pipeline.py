"""Training arrays -> batches: one grain dataset whose element i is the whole batch of step i.

Each batch is drawn from a generator seeded with (seed, step), so the order is the same whatever the
number of workers, and resuming needs nothing but the step. The mixture over tasks is the number of
examples of each task in a step (`cfg.mix`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from mmllm.common.config import Config
from mmllm.data import transforms

Batch = dict[str, np.ndarray]
NO_LABEL = -1


@dataclasses.dataclass(frozen=True)
class Captioned:
    """Pictures with captions, as stem cells of several augmented views."""

    cells: Sequence[np.ndarray]  # per view: (pictures, grid, grid, channels) float16
    ids: np.ndarray  # (captions, tokens) int32: [<cap:xx>] text <eos>, padded with 0
    # (pictures + 1,): captions of picture i are ids[first[i] : first[i + 1]], English first.
    first: np.ndarray
    label: np.ndarray  # (pictures,) index of the picture's English caption in the bank, or NO_LABEL
    weight: np.ndarray  # (pictures,) sampling weight


@dataclasses.dataclass(frozen=True)
class Questioned:
    """Questions about pictures."""

    cells: Sequence[np.ndarray]  # per view: (pictures, grid, grid, channels) float16
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
    """Text for the text tower: captions of the bank in every language, and dictionary words."""

    ids: np.ndarray  # (texts, tokens) int32: [<emb>] text <eos>
    label: np.ndarray  # (texts,) index in the bank, or NO_LABEL for a dictionary word
    weight: np.ndarray  # (texts,) sampling weight among the captions; unused for words
    teacher: np.ndarray  # (texts, 384) float16 sentence embedding; zero for captions
    bank_teacher: np.ndarray  # (bank, 384) float16 sentence embedding of each English caption


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


def _cells(
    source: Captioned | Questioned, picture: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    view = rng.integers(0, len(source.cells), len(picture))
    return np.stack([source.cells[v][p] for v, p in zip(view, picture, strict=True)])


def _captioned(
    source: Captioned, count: int, english_share: float, longest: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells, token ids and labels of `count` pictures drawn by weight.

    Captions of more than `longest` tokens are not drawn: English stands in, or another picture.
    """
    fits = ~source.ids[np.minimum(source.first[:-1], len(source.ids) - 1), longest:].any(axis=1)
    weight = source.weight * fits
    picture = rng.choice(len(weight), count, p=weight / weight.sum())
    start, stop = source.first[picture], source.first[picture + 1]
    other = start + np.floor(rng.random(count) * np.maximum(stop - start - 1, 0)).astype(int) + 1
    other = np.minimum(other, stop - 1)
    english = (rng.random(count) < english_share) | source.ids[other, longest:].any(axis=1)
    ids = source.ids[np.where(english, start, other), :longest]
    return _cells(source, picture, rng), ids, source.label[picture]


def _questioned(
    source: Questioned, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    question = rng.integers(0, len(source.picture), count)
    return (
        _cells(source, source.picture[question], rng),
        source.ids[question],
        source.answer[question],
    )


def _targets(ids: np.ndarray, start: np.ndarray, room: int) -> Batch:
    """Next-token targets from position `start` of each row on, flattened over the batch.

    Returns:
      position (room,): index into the flattened (rows * tokens) hidden states; target (room,): the
      next token; target_weight (room,): 1 for a real target, 0 for padding.
    """
    column = np.arange(ids.shape[1] - 1)[None]
    wanted = (column >= start[:, None]) & (ids[:, 1:] != 0)
    row, place = np.nonzero(wanted)
    if len(row) > room:
        raise ValueError(
            f"data.targets_per_example leaves room for {room} targets a step, got {len(row)}: "
            "raise it"
        )
    fill = (0, room - len(row))
    return {
        "position": np.pad(row * ids.shape[1] + place, fill).astype(np.int32),
        "target": np.pad(ids[row, place + 1], fill).astype(np.int32),
        "target_weight": np.pad(np.ones(len(row), np.float32), fill),
        "target_row": np.pad(row, fill).astype(np.int32),
    }


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
            **self._lines(rng),
            **self._texts(rng),
        }

    def _pictures(self, rng: np.random.Generator) -> Batch:
        mix, data, arrays = self.config.mix, self.config.data, self.arrays
        none = np.zeros(0, int)  # so that a step without pictures has arrays of no rows
        cells, label, start = [arrays.emoji.cells[0][:0]], [none], [none]
        ids = [np.zeros((0, data.decoder_tokens), np.int32)]
        for source, count in (
            (arrays.emoji, mix.emoji),
            (arrays.stamps, mix.stamps),
            (arrays.composites, mix.composites),
        ):
            if count:
                part = _captioned(source, count, data.english_share, data.decoder_tokens, rng)
                cells.append(part[0])
                ids.append(part[1])
                label.append(part[2])
                start.append(np.zeros(count, int))
        for asked, count in (
            (arrays.composites_vqa, mix.composites_vqa),
            (arrays.easy_vqa, mix.easy_vqa),
        ):
            if count:
                part = _questioned(asked, count, rng)
                cells.append(part[0])
                ids.append(part[1])
                start.append(part[2])
                label.append(np.full(count, NO_LABEL))
        tokens = np.concatenate(ids)
        room = self.config.mix.pictures * data.targets_per_example
        return {
            "cells": np.concatenate(cells),
            "ids": tokens.astype(np.int32),
            "label": np.concatenate(label).astype(np.int32),
            **_targets(tokens, np.concatenate(start), room),
        }

    def _names(self, rng: np.random.Generator) -> Batch:
        """More pictures of the bank's names, for the short path: each with a short caption."""
        mix, data = self.config.mix, self.config.data
        if not mix.names:
            return {}
        emoji, stamps = self.arrays.emoji, self.arrays.stamps
        drawn = int(mix.names * emoji.weight.sum() / (emoji.weight.sum() + stamps.weight.sum()))
        parts = [
            _captioned(source, count, data.english_share, data.name_tokens, rng)
            for source, count in ((emoji, drawn), (stamps, mix.names - drawn))
            if count
        ]
        cells, ids, label = (np.concatenate(part) for part in zip(*parts, strict=True))
        targets = _targets(ids, np.zeros(mix.names, int), mix.names * data.targets_per_example)
        return {
            "name_cells": cells,
            "name_ids": ids.astype(np.int32),
            "name_label": label.astype(np.int32),
            **{f"name_{field}": value for field, value in targets.items()},
        }

    def _lines(self, rng: np.random.Generator) -> Batch:
        source = self.arrays.lines
        pick = rng.integers(0, len(source.ids), self.config.mix.lines)
        ids = source.ids[pick].astype(np.int32)
        return {"lines": transforms.augment_line(source.pixels[pick], rng), "line_ids": ids}

    def _texts(self, rng: np.random.Generator) -> Batch:
        return draw_texts(self.arrays.texts, self.config.mix.texts, rng)


def draw_texts(source: Texts, count: int, rng: np.random.Generator) -> Batch:
    """Half captions of the bank, drawn by weight, and half dictionary words."""
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
