"""The easy-VQA corpus: one coloured shape a picture, 64 px, with about ten questions each.

A check that question answering works at all, nothing more: every picture holds a single shape and
thirteen words answer everything. The test split is the package's own; val is a tenth of its
training pictures.

Source: Victor Zhou, easy-VQA (the `easy-vqa` package on PyPI).
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from mmllm.data import packages, splits

PACKAGE = packages.PACKAGES["easy-vqa"]
PACKAGES = (PACKAGE.name,)
ATTRIBUTION = {
    "source": f"{PACKAGE.name} {PACKAGE.version}",
    "author": PACKAGE.title,
    "licence": PACKAGE.licence,
}
SIDE = 64
VAL_SHARE = 0.10
SPLITS = ("train", "val", "test")


class EasyVqa(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the easy-VQA corpus."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pictures of one coloured shape with simple questions and answers.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png"),
                    "questions": tfds.features.Sequence(text()),
                    "answers": tfds.features.Sequence(text()),
                    "id": text(),
                }
            ),
            license=PACKAGE.licence,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        root = packages.fetch(PACKAGE.name) / "easy_vqa" / "data"
        return {split: self._generate_examples(root, split) for split in SPLITS}

    def _generate_examples(self, root: Path, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        yield from ((example["id"], example) for example in examples(root, split))


def examples(root: Path, split: str) -> Iterator[dict[str, Any]]:
    """Yields the examples of a split, in the order of the pictures' numbers.

    Args:
      root: the package's data folder, with train/ and test/, each questions.json and images/.
      split: one of SPLITS.

    Raises:
      ValueError: an unknown split, or a questions.json that is not a list of
        [question, answer, picture number].
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown; allowed: {', '.join(SPLITS)}")
    folder = root / ("test" if split == "test" else "train")
    for picture, pairs in sorted(questions_of(folder / "questions.json").items()):
        if split != "test" and is_val(picture) != (split == "val"):
            continue
        yield {
            "image": str(folder / "images" / f"{picture}.png"),
            "questions": [question for question, _ in pairs],
            "answers": [answer for _, answer in pairs],
            "id": f"{folder.name}/{picture}",
        }


def questions_of(path: Path) -> dict[int, list[tuple[str, str]]]:
    """Returns picture number -> its questions with answers."""
    pairs = defaultdict(list)
    for row in json.loads(path.read_text("utf-8")):
        if not (isinstance(row, list) and len(row) == 3 and isinstance(row[2], int)):
            raise ValueError(f"{path}: a row is [question, answer, picture number], not {row!r}")
        pairs[row[2]].append((row[0], row[1]))
    return dict(pairs)


def is_val(picture: int) -> bool:
    """Whether a training picture is held out for validation."""
    # By picture, so that its questions stay together.
    return splits.share(str(picture), "easy_vqa") < VAL_SHARE
