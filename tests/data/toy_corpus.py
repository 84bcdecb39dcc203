"""A corpus of seven grey squares, built in a moment."""

import numpy as np
import pytest

from mmllm.data import packages

tfds = pytest.importorskip("tensorflow_datasets")
from mmllm.data.corpora import drawings  # noqa: E402

PACKAGE = packages.Package("toy-stamps", "npm", "1.0", "0" * 64, "MIT", "Toy stamps")
SIZES = {"train": 5, "style_out": 2}


class Toy(tfds.core.GeneratorBasedBuilder):
    """Seven coloured squares."""

    VERSION = tfds.core.Version("1.0.0")
    fail = False

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=drawings.features())

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split, size) for split, size in SIZES.items()}

    def _generate_examples(self, split, size):
        if self.fail:
            raise ValueError("the disk is full")
        for number in range(size):
            key = f"{split}/{number}"
            yield (
                key,
                drawings.record(
                    image=np.full((160, 160, 4), 10 * number + 5, np.uint8),
                    key=key,
                    concept=f"square {number}",
                    family="toy",
                    package=PACKAGE,
                    captions={"en": f"a square {number}", "de": f"ein Viereck «{number}»"},
                    keywords=("flat", "grey"),
                ),
            )
