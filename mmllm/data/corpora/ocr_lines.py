"""The text-line corpus: words, numbers and phrases drawn in some 300 font designs.

160,000 lines to train on, and three tests in fonts the reader has never seen, with words it has
never seen: print as noisy as in training, print in black on white, and handwriting. Every line
depends only on its split and its number.
"""

import multiprocessing
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import tensorflow_datasets as tfds

from mmllm.data import packages
from mmllm.data.synthetic import fonts, line_drawing, phrases

SEED = "ocr_lines 1"
LINES_A_JOB = 500
WORKERS = 2
PACKAGES = (*fonts.package_names(), phrases.WORDS_PACKAGE)
ATTRIBUTION = {"author": "drawn by mmllm with the font of that package"}
KIND_WEIGHTS = {"print": 0.50, "script": 0.34, "display": 0.16}
SMALLEST_PX = {"print": 12, "script": 18, "display": 14}
CAPITALS_IN_SCRIPT = 0.25  # share of all-capital texts that stay so in handwriting
ATTEMPTS = 50


@dataclass(frozen=True)
class Plan:
    """What the lines of one split are made of."""

    lines: int
    fonts: str
    words: str
    noisy: bool = True


PLANS = {
    "train": Plan(160_000, "train", "train"),
    "val": Plan(1_000, "train", "val"),
    "unseen_print": Plan(1_000, "unseen_print", "test"),
    "unseen_print_clean": Plan(600, "unseen_print", "test", noisy=False),
    "unseen_script": Plan(600, "unseen_script", "test"),
}


@dataclass(frozen=True)
class Line:
    """One drawn line: JPEG bytes, the text, and the font family."""

    key: str
    image: bytes
    text: str
    family: fonts.Family


class OcrLines(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the text-line corpus."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text
        return tfds.core.DatasetInfo(
            builder=self,
            description="Lines of text of up to 24 characters in free fonts, split by design.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "text": text(),
                    "font": text(),
                    "id": text(),
                    "source": text(),
                    "licence": text(),
                }
            ),
            license="each line's picture: the licence of its font; texts: LicenseRef-SCOWL",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        return {name: self._generate_examples(name) for name in PLANS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        plan = PLANS[split]
        jobs = [(plan, split, start) for start in range(0, plan.lines, LINES_A_JOB)]
        context = multiprocessing.get_context("spawn")  # TensorFlow's threads do not survive a fork
        with ProcessPoolExecutor(WORKERS, mp_context=context) as pool:
            for lines in pool.map(draw_job, *zip(*jobs, strict=True)):
                yield from ((line.key, record(line)) for line in lines)


def record(line: Line) -> dict[str, Any]:
    """Returns one example for the builder's features."""
    package = packages.PACKAGES[line.family.package]
    return {
        "image": BytesIO(line.image),
        "text": line.text,
        "font": line.family.name,
        "id": line.key,
        "source": f"{package.name} {package.version}",
        "licence": package.licence,
    }


def draw_job(plan: Plan, split: str, start: int) -> list[Line]:
    """Draws up to LINES_A_JOB lines of a split, from number `start` on."""
    source = Source(plan)
    return [source.line(split, i) for i in range(start, min(start + LINES_A_JOB, plan.lines))]


def fitting(text: str, family: fonts.Family, rng: random.Random) -> str:
    """Returns the text in capitals where the font has no others, and seldom so in handwriting."""
    if family.upper:
        return text.upper()
    if family.kind == "script" and text.isupper() and rng.random() > CAPITALS_IN_SCRIPT:
        return text.title() if "'" not in text else text.capitalize()
    return text


class Source:
    """The fonts and words of one plan; draws any of its lines by number."""

    def __init__(self, plan: Plan):
        """Reads the font table and the word list; both packages must be at hand."""
        self._noisy = plan.noisy
        self._lineages = fonts.by_lineage(fonts.in_split(plan.fonts))
        self._phrases = phrases.Phrases(phrases.words(plan.words))

    def line(self, split: str, number: int) -> Line:
        """Returns line `number` of a split.

        Raises:
          ValueError: no font of the plan can draw any text (a broken font table).
        """
        # Of its own, so that a line is the same whichever process draws it.
        rng = random.Random(f"{SEED} {split} {number}")
        for _ in range(ATTEMPTS):
            family = self._family(rng)
            text = self._phrases.draw(rng)
            text = fitting(text, family, rng)
            if not family.can_draw(text):
                continue
            path = rng.choice(family.paths())
            if self._noisy:
                smallest = SMALLEST_PX[family.kind]
                pixels = line_drawing.draw_line(text, path, rng, smallest)
            else:
                pixels = line_drawing.draw_plain_line(text, path)
            if pixels is not None:
                quality = rng.randint(90, 96)
                return Line(f"{split}/{number}", line_drawing.jpeg(pixels, quality), text, family)
        raise ValueError(f"no font of split {split!r} draws line {number} in {ATTEMPTS} attempts")

    def _family(self, rng: random.Random) -> fonts.Family:
        kinds = list(self._lineages)
        kind = rng.choices(kinds, [KIND_WEIGHTS[kind] for kind in kinds])[0]
        # A design first: one that comes as ten families is drawn no more often than another.
        return rng.choice(rng.choice(self._lineages[kind]))
