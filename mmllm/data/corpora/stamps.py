"""The stamps corpus: Tux Paint's cut-out pictures with captions by people in twelve languages.

About a quarter are photographs, the rest drawings. Photographs of held-out concepts are the
`photo_out` test.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image

from mmllm.data import packages, splits
from mmllm.data.corpora import drawings
from mmllm.data.lexicons import cldr

PACKAGE = "tuxpaint-stamps-default"
PACKAGES = (PACKAGE, *cldr.PACKAGES)
PROGRAMS = (drawings.RENDERER,)
SPLITS = ("train", "val", "concept_out", "photo_out")

# Our language -> the locales that may hold it, best first.
_LOCALES = {"pt": ("pt_BR", "pt"), "zh": ("zh_CN", "zh")}
_MIRRORED = ("_mirror", "_flip", "_mirror_flip")
# Their captions do not say what the picture shows.
_UNDESCRIBED = re.compile(
    r"/football_helmet_|/final-roll-call|/dreydl-|/sedan_police$|/wig|/pengwin$"
)
_PHOTO_MAX_FLATNESS = 0.25  # photographs have .05 in the median
_DRAWN = frozenset({"cartoon", "symbols", "roadsigns", "body_parts", "easter"})


@dataclass(frozen=True)
class Stamp:
    """One picture file with its captions by language ("en" first) and its concept."""

    path: Path
    key: str
    captions: dict[str, str]
    concept: str


class Stamps(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the stamps corpus."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Tux Paint stamps: cut-out pictures with captions in 12 languages.",
            features=drawings.features(),
            license=packages.PACKAGES[PACKAGE].licence,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        packages.require(drawings.RENDERER)
        by_split: dict[str, list[tuple[Stamp, np.ndarray]]] = {name: [] for name in SPLITS}
        for stamp in stamps():
            image = picture_of(stamp.path)
            by_split[splits.stamp_split(stamp.concept, is_photo(stamp, image))].append(
                (stamp, image)
            )
        return {name: self._generate_examples(rows) for name, rows in by_split.items() if rows}

    def _generate_examples(
        self, rows: list[tuple[Stamp, np.ndarray]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        package = packages.PACKAGES[PACKAGE]
        for stamp, image in rows:
            yield (
                stamp.key,
                drawings.record(
                    image=image,
                    key=stamp.key,
                    concept=stamp.concept,
                    family=PACKAGE,
                    package=package,
                    captions=stamp.captions,
                    keywords=(part for part in stamp.key.split("/")[:-1] if part != "cartoon"),
                ),
            )


@cache
def stamps() -> tuple[Stamp, ...]:
    """Returns every captioned stamp, without mirrored twins, in the order of their paths."""
    root = packages.fetch(PACKAGE) / "usr/share/tuxpaint/stamps"
    files: dict[Path, Path] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix in (".png", ".svg") and not path.stem.endswith(_MIRRORED):
            files[path.with_suffix("")] = path  # .svg sorts after .png and is the sharper one
    found = []
    for base, path in files.items():
        text = base.with_suffix(".txt")
        key = str(base.relative_to(root))
        if text.is_file() and not _UNDESCRIBED.search(f"/{key}"):
            captions = captions_of(text.read_text("utf-8", errors="replace"))
            if captions:
                found.append(Stamp(path, key, captions, concept_of(captions["en"], key)))
    return tuple(found)


def captions_of(text: str) -> dict[str, str]:
    """Reads a stamp's text file: line 1 is English, then `locale.utf8=caption`.

    Returns:
      Captions by language, "en" first; languages without one are left out, and so are
      translations that only repeat several English words.
    """
    lines = text.splitlines()
    english = clean(lines[0]) if lines else ""
    if not english:
        return {}
    by_locale = dict(re.findall(r"^(\w+)\.utf8=(.+)$", "\n".join(lines[1:]), re.MULTILINE))
    captions = {"en": english}
    for language in cldr.LANGUAGES[1:]:
        locales = _LOCALES.get(language, (language,))
        caption = next((c for name in locales if (c := clean(by_locale.get(name, "")))), "")
        # Several English words again are no translation; a single one may be a loan word.
        if caption and not (" " in english and caption.lower() == english.lower()):
            captions[language] = caption
    return captions


def clean(caption: str) -> str:
    """Returns the first sentence without its full stop; case and other signs as given."""
    first = re.split(r"(?<=[.!?…])\s+(?=\S)|(?<=[。！？])", caption.strip(), maxsplit=1)[0]
    return re.sub(r"\s+", " ", first).rstrip(" .,。，、․").strip()


def picture_of(path: Path) -> UInt8[np.ndarray, "y x 4"]:
    """Returns a stamp as a transparent square, aspect kept."""
    if path.suffix == ".svg":
        return drawings.render_svg(path.read_bytes())
    with Image.open(path) as picture:
        rgba = picture.convert("RGBA")
        # Without its empty border, so that all things fill the square alike.
        return drawings.centre(rgba.crop(rgba.getchannel("A").getbbox()))


def is_photo(stamp: Stamp, image: UInt8[np.ndarray, "y x 4"]) -> bool:
    """Whether a stamp is a photograph: a PNG, not filed as drawn, with hardly any flat colour."""
    if stamp.path.suffix != ".png" or _DRAWN & set(stamp.key.split("/")):
        return False
    return flatness(image) <= _PHOTO_MAX_FLATNESS


def flatness(image: UInt8[np.ndarray, "y x 4"]) -> float:
    """Returns the share of visible neighbours in a row whose colours are equal (within 1 level).

    Photographs have noise and texture (median .05 here), drawings have areas of one colour.
    """
    colours = image[..., :3].astype(np.int16)
    visible = image[..., 3] > 250
    both = visible[:, 1:] & visible[:, :-1]
    if not both.any():
        return 1.0
    steps = np.abs(np.diff(colours, axis=1)).max(-1)
    return float((steps[both] <= 1).mean())


_OPENERS = re.compile(
    r"^((a|an|the|some|our|two|another|your|eat|say|enter|left|right|very|old|this|it's|"
    r"happy) )+"
)
_MEASURES = re.compile(
    r"\b(pair|bunch|cluster|head|string|couple|quarter|piece|baby|model|plant|tube|house) of "
    r"(a |an |the )?"
)
_ENDS = re.compile(
    r"\s*[,;:!?.—–…(]|\s-\s| (with|in|inside|on|of|from|for|to|at|by|and|or|as|that|which|like|"
    r"worn|made|making|playing|dancing|called|covered|used|hatched|is|are|was|means|lets|gets|"
    r"stands|resembles|carries|carry|last|you|ahead|shared|put)\b"
)
# Last words that say nothing without the word before them, and ones that add nothing to it.
_NEEDS_TWO = frozenset(
    "machine cleaner cane kit mixer grinder cooker sign note rest clef crossing cone bolt marker "
    "post posts pole ball tape root tie well light horn core oven disc end tails fowl cup "
    "hall module printer monitor thermometer bin stop".split()
)
_ADDS_NOTHING = frozenset({"fruit", "slice", "plant", "bulb", "computer"})
# Captions whose head noun no rule finds, by file name.
_CONCEPTS = {
    "penguin_with_spider": "penguin",
    "tux": "penguin",
    "sea_lion": "sea lion",
    "tomato": "tomato",
    "toilet": "toilet",
    "menorah": "menorah",
    "anemone_red": "anemone",
    "flower10": "hibiscus",
    "pigface": "pigface",
    "garlic": "garlic",
    "hair_manga": "pigtails",
    "appooppanthady": "milkweed",
    "blue-and-yellowflag": "flag",
    "clockface": "clock",
    "docks": "dock",
    "dead_end_sign": "dead end",
    "give_way_sign": "give way",
    "plane": "airplane",
    "747": "airplane",
    "beetle": "car",
    "recycle": "recycling symbol",
    "explosion": "explosion",
    "old_naval_shell": "artillery shell",
    "hunter": "house",
    "rosella": "rosella",
    "op3_divide": "divide",
    "German_Christmas_toy": "incense smoker",
}


def concept_of(caption: str, key: str) -> str:
    """Returns the concept of a stamp: as many last words as name an emoji, else the head noun.

    Args:
      caption: the cleaned English caption, e.g. "A pair of blue jeans with patches".
      key: the stamp's path below the stamps folder, which tells letters and coins apart.

    Returns:
      Lower-cased words without article, e.g. "jeans".
    """
    plain = re.sub(r"[“”\"‘]", "", caption.lower().replace("’", "'"))
    name = key.rsplit("/", 1)[-1]
    if name in _CONCEPTS and "/chess/" not in key:
        return _CONCEPTS[name]
    if "/asl/" in key:
        return f"sign for {name[-1]}"
    if letter := re.search(r"letter (\S+( with an? \w+)?)", plain):
        return f"letter {letter[1]}"
    if re.search("/coins/|/japanese/", key):
        return "coin"
    phrase = re.sub(r"\([^)]*\)", "", plain).strip()
    phrase = _OPENERS.sub("", _MEASURES.sub("", _OPENERS.sub("", phrase)))
    words = (_ENDS.split(phrase, maxsplit=1)[0].strip(" '") or phrase).split()
    if "/chess/" in key:
        return f"chess {words[0]}"
    if len(words) > 1 and words[-1] in _ADDS_NOTHING:
        words.pop()
    while len(words) > 1 and "the" in words:
        words = words[words.index("the") + 1 :] or ["the"]
    # The longest tail that is an emoji's name: then both corpora split it alike.
    for start in range(len(words)):
        if splits.concept_key(" ".join(words[start:])) in emoji_keys() and (
            start < len(words) - 1 or words[-1] not in _NEEDS_TWO
        ):
            return " ".join(words[start:])
    return " ".join(words[-2:]) if words[-1] in _NEEDS_TWO else splits.singular(words[-1])


@cache
def emoji_keys() -> frozenset[str]:
    """Returns the concept keys of all emoji names."""
    return frozenset(splits.concept_key(emoji.name) for emoji in cldr.emojis().values())
