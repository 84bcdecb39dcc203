"""The composites corpus: pasted scenes whose every object, colour, place and word is known.

Training shows drawings by known artists and plain shapes on generated grounds. The tests change
what is new: `test` has known things by unseen artists on unseen grounds and photographs, with
signs in unseen fonts; `concept_out` has things never seen in training, on the same unseen grounds.
Reads the emoji and stamps corpora, which must be built first.
"""

import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from io import BytesIO
from typing import Any

import tensorflow_datasets as tfds

from mmllm.data import sources
from mmllm.data.synthetic import backgrounds, fonts, line_drawing, scene_questions, scenes

SEED = "composites 1"
JPEG_QUALITY = 95
PACKAGES = (*fonts.package_names(), backgrounds.PHOTO_PACKAGE)
ATTRIBUTION = {"author": "composed by mmllm from drawings of those packages"}


@dataclass(frozen=True)
class Plan:
    """What the scenes of one split are made of."""

    pictures: int
    corpora: tuple[tuple[str, str], ...]
    fonts: str
    shapes: bool = True
    test_grounds: bool = False


KNOWN = (("emoji", "train"), ("stamps", "train"))
PLANS = {
    "train": Plan(12_000, KNOWN, "train"),
    "val": Plan(500, KNOWN, "train"),
    "test": Plan(1_000, (("emoji", "style_out"),), "unseen_print", test_grounds=True),
    "concept_out": Plan(
        500,
        (("emoji", "concept_out"), ("stamps", "concept_out")),
        "unseen_print",
        # Training shows every shape: there are no unseen ones.
        shapes=False,
        test_grounds=True,
    ),
}


class Composites(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the composites corpus."""

    VERSION = tfds.core.Version("1.1.0")  # of emoji 1.1.0

    def _info(self) -> tfds.core.DatasetInfo:
        text, side = tfds.features.Text, scenes.SIDE
        return tfds.core.DatasetInfo(
            builder=self,
            description="Scenes of one to four known things and signs, with questions.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(side, side, 3), encoding_format="jpeg"),
                    "questions": tfds.features.Sequence(text()),
                    "answers": tfds.features.Sequence(text()),
                    "kinds": tfds.features.Sequence(text()),
                    "caption": text(),
                    "id": text(),
                    "source": text(),
                    "licence": text(),
                }
            ),
            license="each scene: the licences of the drawings in it",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        return {name: self._generate_examples(name) for name in PLANS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        plan = PLANS[split]
        studio = studio_of(plan)
        for number in range(plan.pictures):
            example = record(studio, split, number)
            yield example["id"], example


def studio_of(plan: Plan) -> scenes.Studio:
    """Opens the corpora and fonts of a plan.

    Raises:
      FileNotFoundError: one of the corpora is not built.
    """
    corpora = [sources.load(name, split) for name, split in plan.corpora]
    families = [family for family in fonts.in_split(plan.fonts) if family.kind == "print"]
    return scenes.Studio(
        cutouts=scenes.Cutouts(corpora),
        shapes=plan.shapes,
        words=sign_words(),
        font_families=tuple(families),
        test_grounds=plan.test_grounds,
    )


@functools.cache
def sign_words() -> tuple[str, ...]:
    """Returns the words and numbers that signs say, the same in every split."""
    text = resources.files("mmllm.data.synthetic").joinpath("sign_words.txt").read_text("utf-8")
    return tuple(dict.fromkeys(text.split()))


def record(studio: scenes.Studio, split: str, number: int) -> dict[str, Any]:
    """Returns example `number` of a split; it depends on nothing but the studio and the number."""
    # Of its own, so that a scene stays as it is when the number of others changes.
    rng = random.Random(f"{SEED} {split} {number}")
    scene = scenes.compose(studio, rng)
    questions = scene_questions.ask(scene, tuple(studio.vocabulary()), rng)
    sources_used = [*scene.sources, *([backgrounds.photo_source()] if scene.on_photo else [])]
    packages = dict.fromkeys(source for source, _ in sources_used)
    licences = dict.fromkeys(licence for _, licence in sources_used)
    return {
        "image": BytesIO(line_drawing.jpeg(scene.pixels, JPEG_QUALITY)),
        "questions": [question.text for question in questions],
        "answers": [question.answer for question in questions],
        "kinds": [question.kind for question in questions],
        "caption": scene_questions.caption(scene),
        "id": f"{split}/{number}",
        "source": " AND ".join(packages) or "drawn by mmllm",
        "licence": " AND ".join(licences) or "CC0-1.0",
    }
