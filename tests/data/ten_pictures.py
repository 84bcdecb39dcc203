"""Ten squares, each of a colour of its own: a whole corpus in one file, as README tells."""

import numpy as np
import tensorflow_datasets as tfds

ATTRIBUTION = {"source": "drawn here", "author": "nobody", "licence": "CC0-1.0"}
NAMES = "red green blue yellow black white orange purple grey brown".split()


class TenPictures(tfds.core.GeneratorBasedBuilder):
    """Squares with a caption and a question each."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        text = tfds.features.Text()
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "caption": text,
            "questions": tfds.features.Sequence(text),
            "answers": tfds.features.Sequence(text),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number, name in enumerate(NAMES):
            colour = (25 * number, 255 - 25 * number, 128)
            yield (
                number,
                {
                    "image": np.full((40, 40, 3), colour, np.uint8),
                    "caption": f"a {name} square",
                    "questions": ["what colour is it?"],
                    "answers": [name],
                },
            )
