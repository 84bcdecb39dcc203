"""What composites show: the things by category, their names and plurals, colours and plain shapes.

things.txt lists the things. Used by scenes (which pastes them) and scene_questions.
"""

import functools
from dataclasses import dataclass
from importlib import resources

from mmllm.data import splits

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (214, 36, 36),
    "orange": (245, 140, 22),
    "yellow": (247, 217, 28),
    "green": (44, 160, 60),
    "blue": (38, 92, 214),
    "purple": (130, 52, 176),
    "pink": (250, 130, 185),
    "brown": (122, 74, 36),
}
SHAPE_COLOURS: dict[str, Colour] = {
    **COLOURS,
    "black": (24, 24, 24),
    "white": (250, 250, 250),
    "gray": (128, 128, 128),
}
SHAPES = (
    "circle",
    "square",
    "triangle",
    "rectangle",
    "star",
    "diamond",
    "pentagon",
    "hexagon",
    "oval",
    "cross",
    "heart",
)
SHAPE = "shape"
OTHER = "other"
# How often a category is drawn, and how "is there ...?" asks for it.
WEIGHTS = {
    "animal": 3.0,
    "food": 2.5,
    "vehicle": 2.2,
    "plant": 1.0,
    "instrument": 1.0,
    "clothing": 1.2,
    "tool": 0.8,
    "building": 1.0,
    "ball": 0.6,
    OTHER: 3.0,
    SHAPE: 2.2,
}
SPOKEN_CATEGORIES = {
    "animal": ("an animal", "animals"),
    "food": ("food", "food items"),
    "vehicle": ("a vehicle", "vehicles"),
    "plant": ("a plant", "plants"),
    "instrument": ("a musical instrument", "musical instruments"),
    "clothing": ("something to wear", "clothing items"),
    "tool": ("a tool", "tools"),
    "building": ("a building", "buildings"),
    "ball": ("a ball", "balls"),
    SHAPE: ("a geometric shape", "geometric shapes"),
}
# Things of other categories that a stranger might take for this one: beside them, nobody is asked
# whether there is one and told no.
CONFUSABLE = {
    "food": frozenset("chicken turkey duck goose shrimp crab lobster squid fish octopus".split()),
    "plant": frozenset(("pumpkin",)),
    "clothing": frozenset(("watch", "ring", "bag", "backpack", "pair of glasses", "umbrella")),
    "tool": frozenset(("knife", "pair of scissors", "magnet", "key", "bucket", "spoon", "sponge")),
    "vehicle": frozenset(),
    "instrument": frozenset(("bell", "radio")),
    "building": frozenset(("fountain", "door", "window")),
    "ball": frozenset(("crystal ball", "orange", "globe")),
    "animal": frozenset(("teddy bear",)),
    SHAPE: frozenset(
        ("gem", "ring", "sun", "kite", "dice", "envelope", "snowflake", "crystal ball")
    ),
}
_IRREGULAR = {
    "mouse": "mice",
    "snowman": "snowmen",
    "volcano": "volcanoes",
    "goose": "geese",
    "wolf": "wolves",
    "knife": "knives",
    "fish": "fish",
    "deer": "deer",
    "moose": "moose",
    "bison": "bison",
    "sheep": "sheep",
    "shrimp": "shrimp",
    "squid": "squid",
    "dice": "dice",
    "loaf": "loaves",
    "scarf": "scarves",
    "potato": "potatoes",
    "tomato": "tomatoes",
    "mango": "mangoes",
    "mosquito": "mosquitoes",
    "octopus": "octopuses",
    "rhinoceros": "rhinoceroses",
    "hippopotamus": "hippopotamuses",
    "cactus": "cacti",
    "hibiscus": "hibiscus",
    "blowfish": "blowfish",
    "jellyfish": "jellyfish",
    "moai": "moai",
}


@dataclass(frozen=True)
class Thing:
    """One thing to paste.

    Attributes:
      category: a key of WEIGHTS.
      concept: the name of the drawings that show it.
      name: what questions call it.
      kind_of: a more general name that it also answers to, or "".
    """

    category: str
    concept: str
    name: str
    kind_of: str = ""


@functools.cache
def things() -> tuple[Thing, ...]:
    """Returns every thing of things.txt, in its order."""
    text = resources.files("mmllm.data.synthetic").joinpath("things.txt").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found = []
    for line in "\n".join(lines).replace("\n  ", " ").splitlines():
        category, _, items = line.partition(": ")
        for item in items.split(", "):
            item, _, kind_of = item.partition("<")
            concept, _, name = item.partition("=")
            found.append(Thing(category, concept.lower(), name or concept.lower(), kind_of))
    return tuple(found)


def shapes() -> tuple[Thing, ...]:
    """Returns the plain shapes."""
    return tuple(Thing(SHAPE, name, name) for name in SHAPES)


def by_concept() -> dict[str, Thing]:
    """Returns the things by their concept's key (see splits.concept_key)."""
    return {splits.concept_key(thing.concept): thing for thing in things()}


def plural(name: str) -> str:
    """Returns the plural of a name ("slice of pizza" -> "slices of pizza")."""
    first, of, rest = name.partition(" of ")
    if of:
        return f"{plural(first)} of {rest}"
    head, space, last = name.rpartition(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return head + space + last


def with_article(name: str) -> str:
    """Returns the name with "a" or "an" ("an orange car", "a unicorn")."""
    # By sound, not by letter: a unicorn, an hour.
    vowel = name[0] in "aeiou" and not name.startswith(("uni", "eu", "one", "ukulele"))
    return f"{'an' if vowel or name.startswith(('hour', 'x-ray')) else 'a'} {name}"


def related(one: Thing, other: Thing) -> bool:
    """Whether the two have one name or one is a kind of the other, so that "no" would be unfair."""
    return one.name in (other.name, other.kind_of) or other.name == one.kind_of


def mistakable(thing: Thing, category: str) -> bool:
    """Whether a thing belongs to a category or might be taken for one of it."""
    if thing.category == category or thing.name in CONFUSABLE.get(category, ()):
        return True
    return category == "plant" and thing.category == "food"  # fruit and vegetables
