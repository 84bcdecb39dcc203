"""What a score is worth: answers without looking, the majority, chance, and the nearest neighbour.

Each baseline answers the same questions as the model and is scored by the same metrics in
`mmllm.evaluate.tasks`. They learn from the training split only.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mmllm.common import paths
from mmllm.evaluate import corpus as corpus_lib
from mmllm.evaluate.metrics.vqa import normalise_answer

CHANCE_SEED = 2

Features = Callable[[list[Any]], Float[np.ndarray, "b f"]]
"""Pictures -> pooled features of a network that was not trained on the corpora."""


def majority(texts: Iterable[str]) -> str:
    """The most frequent text; of equally frequent ones, the first in the alphabet.

    Raises:
      ValueError: no texts.
    """
    counts = Counter(texts)
    if not counts:
        raise ValueError("texts is empty: there is no majority")
    # Not most_common(), whose ties go by the order of the corpus.
    return min(counts, key=lambda text: (-counts[text], text))


class QuestionOnly:
    """Answers with the most frequent training answer to the question, its kind, or any.

    Args:
      questions: training questions.
      answers: their answers.
      kinds: their kinds, such as "count"; equal strings where a corpus has none.
    """

    def __init__(
        self, questions: Sequence[str], answers: Sequence[str], kinds: Sequence[str]
    ) -> None:
        by_question: dict[str, list[str]] = defaultdict(list)
        by_kind: dict[str, list[str]] = defaultdict(list)
        for question, answer, kind in zip(questions, answers, kinds, strict=True):
            by_question[normalise_answer(question)].append(answer)
            by_kind[kind].append(answer)
        self.overall = majority(answers)
        self._by_question = {question: majority(texts) for question, texts in by_question.items()}
        self._by_kind = {kind: majority(texts) for kind, texts in by_kind.items()}

    def answer(self, question: str, kind: str) -> str:
        """The best guess without the picture."""
        fallback = self._by_kind.get(kind, self.overall)
        return self._by_question.get(normalise_answer(question), fallback)


def random_places(size: int, count: int) -> list[int]:
    """`count` of `size` training examples, drawn with a fixed seed: guessing by frequency."""
    return np.random.default_rng(CHANCE_SEED).integers(0, size, count).tolist()


class Neighbours:
    """The nearest training picture by frozen features: memory without learning.

    Features are standardised over the training pictures and compared by cosine.

    Args:
      features: of the training pictures, (n, f).
      captions: of each, by language.
    """

    def __init__(
        self, features: Float[np.ndarray, "n f"], captions: Sequence[corpus_lib.Captions]
    ) -> None:
        if not len(features) == len(captions) > 0:
            raise ValueError(
                "features and captions must be parallel and not empty, got "
                f"{len(features)} and {len(captions)}"
            )
        # Standardised, or the channels with the largest values would decide alone.
        self._centre = features.mean(0)
        self._spread = features.std(0) + 1e-6  # a channel may be 0 in every picture
        self._memory = self._unit(features)
        self._captions = captions
        self._rows: dict[str, list[int]] = defaultdict(list)
        for row, each in enumerate(captions):
            for name in corpus_lib.names(each):
                self._rows[name].append(row)

    def _unit(self, features: Float[np.ndarray, "b f"]) -> Float[np.ndarray, "b f"]:
        scaled = (features - self._centre) / self._spread
        return scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-12)

    def nearest(self, features: Float[np.ndarray, "b f"]) -> Int[np.ndarray, "b"]:
        """Index of the nearest training picture."""
        return np.argmax(self._unit(features) @ self._memory.T, axis=1)

    def captions(self, features: Float[np.ndarray, "b f"], language: str = "en") -> list[str]:
        """First caption of the nearest training picture; "" where it has none in the language."""
        nearest = [self._captions[index].get(language, []) for index in self.nearest(features)]
        return [found[0] if found else "" for found in nearest]

    def knows(self, gallery: Sequence[str]) -> bool:
        """Whether every name of a gallery labels at least one training picture."""
        return all(name in self._rows for name in gallery)

    def similarity(
        self, features: Float[np.ndarray, "b f"], gallery: Sequence[str]
    ) -> Float[np.ndarray, "b g"]:
        """Score of each name for each picture: its nearest training picture of that name.

        Raises:
          ValueError: a name that labels no training picture.
        """
        missing = [name for name in gallery if name not in self._rows]
        if missing:
            raise ValueError(f"gallery holds names without training picture: {missing[:3]}")
        scores = self._unit(features) @ self._memory.T
        return np.stack([scores[:, self._rows[name]].max(axis=1) for name in gallery], axis=1)


def remembered(
    source: corpus_lib.Source, features: Features, store: Path
) -> Float[np.ndarray, "n f"]:
    """Features of a whole split, computed once.

    Args:
      source: the split.
      features: frozen network.
      store: .npy file for them; its name must change with the data.
    """
    if store.exists():
        return np.load(store, allow_pickle=False)
    # Minutes on two cores, and the same for every model: worth a file.
    table = corpus_lib.in_batches(source, range(len(source)), features)
    with paths.written_whole(store) as temporary, temporary.open("wb") as file:
        np.save(file, table)
    return table


def backbone_features(side: int = 224) -> Features:
    """Mean and maximum over the grid of the frozen ImageNet backbone (7 x 7 x 320 -> 640 numbers).

    Needs JAX and the pinned package with the weights.
    """
    import jax
    import jax.numpy as jnp

    from mmllm.data import images as images_lib
    from mmllm.data import pretrained
    from mmllm.models import efficientnet_lite0

    backbone = efficientnet_lite0.EfficientNetLite0(level="7x7x320")
    params = efficientnet_lite0.convert_weights(pretrained.efficientnet_lite0_weights())

    @jax.jit
    def pooled(pixels: jax.Array) -> jax.Array:
        features = jnp.asarray(backbone.apply({"params": params}, pixels))
        return jnp.concatenate([features.mean((1, 2)), features.max((1, 2))], axis=-1)

    def features(pictures: list[Any]) -> np.ndarray:
        # Always a whole batch, so that JAX compiles once; the rows behind the pictures are cut off.
        pixels = np.zeros((corpus_lib.BATCH, side, side, 3), np.float32)
        for row, picture in enumerate(pictures):
            pixels[row] = images_lib.to_square(picture, side)
        return np.asarray(pooled(pixels))[: len(pictures)]

    return features
