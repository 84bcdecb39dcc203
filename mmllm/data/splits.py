"""Decides once, for every source together, what is trained on and what is only tested.

A concept ("red apple"), an art family (all that one group of artists drew) and a font family each
fall whole on one side. Every corpus builder asks here; nothing else in mmllm draws a split.
"""

import functools
import hashlib
import re
import unicodedata
from importlib import resources

TRAIN, VAL, TEST = "train", "val", "test"
# Concepts are split over all sources together: 121 names are in both emoji and stamps, and a split
# of each source for itself would train on what the other tests.
VAL_SHARE, TEST_SHARE = 0.05, 0.10
FONT_TEST_SHARE = 0.15

# Drawings of one concept differ by .011 to .035 (median pixel difference) inside these groups and
# by .158 to .263 between them: families of a group are versions of the same art.
ARTISTS = {
    "google": ("noto", "noto-v1", "emoji-datasource-google"),
    "twitter": ("twemoji", "emoji-datasource-twitter"),
    "microsoft": ("fluent-emoji", "fluent-emoji-flat", "fluent-emoji-3d"),
    "joypixels": ("emojione", "emojione-v1", "joypixels"),
    "mozilla": ("fxemoji",),
    "openmoji": ("openmoji",),
    "streamline": ("streamline-emojis",),
    "tuxpaint": ("tuxpaint-stamps-default",),
}
# OpenMoji's licence is share-alike, so it is no training data of a model that ships.
UNSEEN_ARTISTS = ("openmoji", "streamline")

_ARTICLES = re.compile(r"^(a|an|the|some|two|our) ")
_FONT_STYLES = re.compile(
    r"\b(thin|extra ?light|light|book|regular|roman|medium|semi ?bold|demi ?bold|bold|extra ?bold|"
    r"black|heavy|italic|oblique|condensed|narrow|extended|mono|caps|sc|display|text|outline)\b"
)
# Other names of a concept that is drawn in more than one source.
_SAME_CONCEPT = {
    "apple": "redapple",
    "greenapple": "redapple",
    "bike": "bicycle",
    "blackcat": "cat",
    "bunny": "rabbit",
    "car": "automobile",
    "chilepepper": "hotpepper",
    "corn": "earofcorn",
    "crescentmoon": "moon",
    "earth": "globe",
    "fireman": "firefighter",
    "firetruck": "fireengine",
    "forklifttruck": "forklift",
    "fridge": "refrigerator",
    "fullmoon": "moon",
    "garbagecan": "wastebasket",
    "gift": "wrappedgift",
    "globeshowingamerica": "globe",
    "globeshowingasiaaustralia": "globe",
    "globeshowingeuropeafrica": "globe",
    "gravestone": "headstone",
    "greenpepper": "bellpepper",
    "hen": "chicken",
    "kitten": "cat",
    "mandarinorange": "tangerine",
    "mobilephone": "telephone",
    "mobiletelephone": "telephone",
    "motorbike": "motorcycle",
    "newmoon": "moon",
    "orange": "tangerine",
    "pepper": "bellpepper",
    "present": "wrappedgift",
    "pumpkin": "jackolantern",
    "racecar": "racingcar",
    "saturn": "ringedplanet",
    "sedancar": "automobile",
    "sheep": "ewe",
    "slicedbread": "bread",
    "sportscar": "racingcar",
    "squirrel": "chipmunk",
    "steamlocomotive": "locomotive",
    "telephonereceiver": "telephone",
    "tombstone": "headstone",
    "truck": "deliverytruck",
    "videocamera": "camera",
    "wheeliebin": "wastebasket",
    "yellowpepper": "bellpepper",
}
_PLURAL_ONLY = re.compile(
    r"(glasses|pants|jeans|pliers|binoculars|scissors|shorts|goggles|mars|leaves|times|crossroads|"
    r"clothes|news|cosmos|tails|pigtails|posts)$"
)


def concept_key(concept: str) -> str:
    """Returns the form under which two spellings of one concept are the same.

    Lower case, no article, no accents, no spaces or punctuation, last word singular, and a
    drawn animal's "face" is the animal: "The Dog Face" -> "dog", "T-shirts" -> "tshirt".

    Raises:
      ValueError: a concept without any letter, digit or sign.
    """
    plain = unicodedata.normalize("NFKD", concept).casefold().strip()
    plain = _ARTICLES.sub("", "".join(c for c in plain if not unicodedata.combining(c)))
    plain = re.sub(r" facing right$", "", plain)
    plain = re.sub(r"(?<=\w) face$", "", plain)
    # A name without letters or digits keeps its signs.
    key = singular("".join(c for c in plain if c.isalnum()) or plain.replace(" ", ""))
    if not key:
        raise ValueError(f"concept {concept!r} is empty; give a word or a name")
    return _SAME_CONCEPT.get(key, key)


def singular(word: str) -> str:
    """Returns the singular of an English noun by rule ("cherries" -> "cherry")."""
    if _PLURAL_ONLY.search(word):
        return word
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes", "oes")):
        return word[:-2]
    # Not "glass", "bus" or "iris".
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def share(text: str, salt: str) -> float:
    """Returns a number in [0, 1) that depends on nothing but the two strings."""
    # Not hash(), which differs from one process to the next.
    digest = hashlib.sha256(f"mmllm {salt}\n{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@functools.cache
def photo_holdout() -> frozenset[str]:
    """Returns the keys of the concepts held out for testing: their photographs and all else."""
    text = resources.files("mmllm.data").joinpath("photo_holdout.txt").read_text("utf-8")
    lines = (line.strip() for line in text.splitlines())
    return frozenset(concept_key(line) for line in lines if line and not line.startswith("#"))


def concept_split(concept: str) -> str:
    """Returns "train", "val" or "test" (85/5/10) for a concept, the same in every source.

    Concepts of photo_holdout.txt are always "test".
    """
    key = concept_key(concept)
    # In every source: a drawing seen in training would give the photograph's name away.
    if key in photo_holdout():
        return TEST
    drawn = share(key, "concept")
    if drawn < TEST_SHARE:
        return TEST
    return VAL if drawn < TEST_SHARE + VAL_SHARE else TRAIN


def artist_of(family: str) -> str:
    """Returns who drew an art family; families of one artist are never on both sides.

    Raises:
      ValueError: a family that ARTISTS does not list.
    """
    for artist, families in ARTISTS.items():
        if family in families:
            return artist
    known = ", ".join(name for families in ARTISTS.values() for name in families)
    raise ValueError(f"art family {family!r} is unknown; known are {known}; add it to ARTISTS")


def is_unseen_style(family: str) -> bool:
    """Whether an art family is for the tests of unseen artists only."""
    return artist_of(family) in UNSEEN_ARTISTS


def emoji_split(concept: str, family: str) -> str | None:
    """Returns the emoji split of one drawing, or None if it belongs to none of them."""
    side = concept_split(concept)
    if is_unseen_style(family):
        return {TRAIN: "style_out", VAL: None, TEST: "style_concept_out"}[side]
    return {TRAIN: "train", VAL: "val", TEST: "concept_out"}[side]


def stamp_split(concept: str, is_photo: bool) -> str:
    """Returns the stamps split of one picture."""
    if is_photo and concept_key(concept) in photo_holdout():
        return "photo_out"
    return {TRAIN: "train", VAL: "val", TEST: "concept_out"}[concept_split(concept)]


def font_key(family: str) -> str:
    """Returns a font family's name without style words: "DejaVu Sans Mono Bold" -> "dejavusans"."""
    # Without their styles, or the bold of a font would be trained on and its italic be "unseen".
    plain = _FONT_STYLES.sub(" ", re.sub(r"[-_]", " ", family.casefold()))
    key = "".join(c for c in plain if c.isalnum())
    # A name of style words alone ("Heavy") is kept whole.
    return key or "".join(c for c in family.casefold() if c.isalnum())


def font_split(family: str) -> str:
    """Returns "train" or "test" (85/15) for a font family, all its styles together."""
    return TEST if share(font_key(family), "font") < FONT_TEST_SHARE else TRAIN
