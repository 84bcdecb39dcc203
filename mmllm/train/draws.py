"""Batches for the phases beside the run itself: cached pictures with their names, and texts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from mmllm.data import pipeline

THREADS, AHEAD = 2, 4  # of a batch's making: the order does not depend on them


@dataclasses.dataclass(frozen=True)
class Named:
    """Pictures with the places of their names among the prototypes.

    Attributes:
      features: per view (pictures, side, side, channels) float16, the plain one first.
      label: (pictures,) place among the prototypes.
      weight: (pictures,) sampling weight.
    """

    features: Sequence[np.ndarray]
    label: np.ndarray
    weight: np.ndarray


@dataclasses.dataclass(frozen=True)
class DrawNamed(grain.transforms.RandomMap):
    """Step number + generator -> features and labels of `batch` pictures over all sources."""

    sources: Sequence[Named]
    batch: int

    # pyrefly: ignore[bad-override]  # The abstract method has no return type, so None is inferred.
    def random_map(self, element: Any, rng: np.random.Generator) -> pipeline.Batch:
        del element  # The generator is already the step's own.
        weight = np.concatenate([source.weight for source in self.sources])
        first = np.cumsum([0, *(len(source.label) for source in self.sources)])
        pick = rng.choice(len(weight), self.batch, p=weight / weight.sum())
        features, labels = [], []
        for place, number in zip(np.searchsorted(first, pick, "right") - 1, pick, strict=True):
            source, row = self.sources[place], number - first[place]
            # Each picture in a view of its own: a batch of one view would learn the view.
            features.append(source.features[rng.integers(len(source.features))][row])
            labels.append(source.label[row])
        return {"features": np.stack(features), "label": np.array(labels, np.int32)}


@dataclasses.dataclass(frozen=True)
class DrawTexts(grain.transforms.RandomMap):
    """Step number + generator -> texts, labels and sentence embeddings of one batch."""

    texts: pipeline.Texts
    count: int

    # pyrefly: ignore[bad-override]  # The abstract method has no return type, so None is inferred.
    def random_map(self, element: Any, rng: np.random.Generator) -> pipeline.Batch:
        del element  # The generator is already the step's own.
        return pipeline.draw_texts(self.texts, self.count, rng)


def named(sources: Sequence[Named], batch: int, seed: int) -> grain.DatasetIterator:
    """An endless, checkpointable iterator over batches of pictures."""
    return _endless(DrawNamed(sources, batch), seed)


def texts(source: pipeline.Texts, batch: int, seed: int) -> grain.DatasetIterator:
    """An endless, checkpointable iterator over texts: half captions, half dictionary words."""
    return _endless(DrawTexts(source, batch), seed)


def _endless(draw: grain.transforms.RandomMap, seed: int) -> grain.DatasetIterator:
    # One element, repeated: what is drawn depends on seed and step alone, so resuming is exact.
    dataset = grain.MapDataset.range(1).repeat().seed(seed).random_map(draw)
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
    return iter(dataset.to_iter_dataset(options))
