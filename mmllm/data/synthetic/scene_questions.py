"""Questions and a caption for a composite scene, with short answers known to be right.

Yes or no is decided by a coin before the question is chosen, numbers and colours are drawn evenly,
and what is absent is drawn as what is present is, so that the wording gives little away. On
photographs, questions are only about things that no photograph used here shows.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from mmllm.data.synthetic import things
from mmllm.data.synthetic.scenes import Box, Item, Scene
from mmllm.data.synthetic.things import (
    COLOURS,
    SHAPE,
    SHAPE_COLOURS,
    SPOKEN_CATEGORIES,
    WEIGHTS,
    Thing,
)

QUESTIONS_A_SCENE = 5
# Categories of which no photographic ground shows anything.
ABSENT_ON_PHOTOS = frozenset(("animal", "food", "instrument", "clothing", "tool", "ball"))
HARD_NEGATIVES = 0.6  # of absent things, the share of a category that is shown
ZERO_SHARE = 0.08  # of the questions for a number, those whose answer is 0


@dataclass(frozen=True)
class Question:
    """A question with its answer, its kind, and what it asks whatever the wording."""

    text: str
    answer: str
    kind: str
    topic: str = ""


@dataclass(frozen=True)
class Case:
    """What a question is made from: the scene, all things that may appear, and the generator."""

    scene: Scene
    vocabulary: tuple[Thing, ...]
    rng: random.Random

    def say(self, *templates: str, **parts: str) -> str:
        """Returns one of the templates, filled in."""
        return self.rng.choice(templates).format(**parts)

    def named_once(self) -> list[Item]:
        """Returns the items whose name no other item shares."""
        counts = Counter(item.name for item in self.scene.items)
        return [item for item in self.scene.items if counts[item.name] == 1]

    def absent(self, category: str | None = None) -> Thing | None:
        """Returns a thing that is surely not shown, of a category or of any, or None."""
        pool: dict[str, list[Thing]] = {}
        for thing in self.vocabulary:
            if self.scene.on_photo and thing.category not in ABSENT_ON_PHOTOS:
                continue
            if not any(things.related(thing, item.thing) for item in self.scene.items):
                pool.setdefault(thing.category, []).append(thing)
        if category is None and pool:
            names = list(pool)
            category = self.rng.choices(names, [WEIGHTS[name] for name in names])[0]
        return self.rng.choice(pool[category]) if category in pool else None


def ask(scene: Scene, vocabulary: tuple[Thing, ...], rng: random.Random) -> list[Question]:
    """Returns about five different questions on a scene, of different kinds where it allows them.

    A sign always gets a question.
    """
    case = Case(scene, vocabulary, rng)
    questions: dict[str, Question] = {}
    first = ["sign"] if scene.sign else []
    weights = {kind: weight for kind, (weight, _) in ASKERS.items()}
    for _ in range(40):  # some scenes have no five questions
        if len(questions) >= QUESTIONS_A_SCENE or not weights:
            break
        kind = first.pop() if first else rng.choices(list(weights), list(weights.values()))[0]
        question = ASKERS[kind][1](case)
        weights[kind] *= 0.25  # so that the next is likely of another kind
        if question is not None:
            # By topic: the same question in other words would be no new one.
            questions.setdefault(f"{question.kind} {question.topic}", question)
    return list(questions.values())


def caption(scene: Scene) -> str:
    """Returns what the scene shows from left to right ("a red bus and two cats")."""
    groups: dict[tuple[str, str | None], int] = {}
    for item in sorted(scene.items, key=lambda item: item.box[0]):
        key = (item.name, item.colour)
        groups[key] = groups.get(key, 0) + 1
    parts = []
    for (name, colour), count in groups.items():
        coloured = f"{colour} {name}" if colour else name
        if count == 1:
            parts.append(things.with_article(coloured))
        else:
            many = f"{colour} {things.plural(name)}" if colour else things.plural(name)
            parts.append(f"{('two', 'three', 'four')[count - 2]} {many}")
    if scene.sign:
        parts.append(f"a sign that says {scene.sign}")
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _existence(case: Case) -> Question | None:
    """Is there a dog? The absent thing is often of a category that is shown."""
    rng, scene = case.rng, case.scene
    present = rng.random() < 0.5
    if present:
        # A quarter of the scenes has a sign: .25 x .24 = .75 x .08, as many yes as no.
        if scene.sign and rng.random() < 0.24:
            name = "sign"
        else:
            name = rng.choice(sorted({item.name for item in scene.items}))
    elif not scene.sign and not scene.on_photo and rng.random() < 0.08:
        name = "sign"
    else:
        hard = rng.random() < HARD_NEGATIVES
        thing = case.absent(rng.choice(scene.items).thing.category) if hard else None
        thing = thing or case.absent()
        if thing is None:
            return None
        name = thing.name
    text = case.say(
        "is there {a}?",
        "is there {a} in the picture?",
        "can you see {a}?",
        a=things.with_article(name),
    )
    return Question(text, "yes" if present else "no", "existence", name)


def _coloured_existence(case: Case) -> Question | None:
    """Is there a red car? Where not, there is a car of another colour."""
    rng = case.rng
    coloured = [item for item in case.scene.items if item.colour]
    if not coloured:
        return None
    item = rng.choice(coloured)
    colour, present = item.colour, rng.random() < 0.5
    if not present:
        shown = {other.colour for other in case.scene.items if other.name == item.name}
        if None in shown:  # a thing of many colours may well look red
            return None
        colour = rng.choice([name for name in _palette(item.thing) if name not in shown])
    name = things.with_article(f"{colour} {item.name}")
    text = case.say("is there {a}?", "is there {a} in the picture?", "can you see {a}?", a=name)
    return Question(text, "yes" if present else "no", "existence", name)


def _count(case: Case) -> Question | None:
    """How many objects are there?"""
    if case.scene.sign or case.scene.on_photo:  # more things that might count as objects
        return None
    text = case.say(
        "how many objects are there?",
        "how many things are in the picture?",
        "how many objects can you see?",
    )
    return Question(text, str(len(case.scene.items)), "count")


def _count_kind(case: Case) -> Question | None:
    """How many dogs are there? Kinds shown several times are preferred, so numbers come evenly."""
    rng = case.rng
    if rng.random() < ZERO_SHARE:
        thing = case.absent(rng.choice(case.scene.items).thing.category)
        if thing is None:
            return None
        name, number = thing.name, 0
    else:
        counts = Counter(item.name for item in case.scene.items)
        names = sorted(counts)
        # Most kinds are shown once: asked evenly, nearly every answer would be 1.
        if max(counts.values()) == 1 and rng.random() < 0.75:
            return None
        name = rng.choices(names, [counts[name] ** 4 for name in names])[0]
        number = counts[name]
    text = case.say(
        "how many {many} are there?",
        "how many {many} can you see?",
        "how many {many} are in the picture?",
        many=things.plural(name),
    )
    return Question(text, str(number), "count_kind", name)


def _colour(case: Case) -> Question | None:
    """What color is the cat?"""
    known = [item for item in case.named_once() if item.colour]
    if not known:
        return None
    item = case.rng.choice(known)
    text = case.say("what color is the {name}?", "what is the color of the {name}?", name=item.name)
    return Question(text, str(item.colour), "color", item.name)


def _of_colour(case: Case) -> Question | None:
    """What is the red object? Only where every thing has a single colour."""
    items = case.scene.items
    # A sign has colours too, and so has whatever a photograph shows.
    if case.scene.on_photo or case.scene.sign or any(item.colour is None for item in items):
        return None
    counts = Counter(item.colour for item in items)
    single = [item for item in items if counts[item.colour] == 1]
    if not single or len(items) == 1:
        return None
    item = case.rng.choice(single)
    text = case.say(
        "what is the {colour} object?", "which object is {colour}?", colour=str(item.colour)
    )
    return Question(text, item.name, "of_color", item.name)


def _relation(case: Case) -> Question | None:
    """Is the cat left of the dog? Asked for the true side or for the opposite one."""
    places = _places(case)
    pairs = [(a, b) for a in places for b in places if a[0] < b[0] and side_of(a[1], b[1])]
    if not pairs:
        return None
    one, other = case.rng.choice(pairs)
    if case.rng.random() < 0.5:
        one, other = other, one
    side = case.rng.choice(side_of(one[1], other[1]))
    truth = case.rng.random() < 0.5
    spoken = side if truth else OPPOSITE[side]  # another side might be true as well
    text = case.say(
        "is the {one} {side} the {other}?",
        "is there {a} {side} the {other}?",
        one=one[0],
        a=things.with_article(one[0]),
        side=case.rng.choice(SPOKEN_SIDES[spoken]),
        other=other[0],
    )
    return Question(text, "yes" if truth else "no", "relation", f"{one[0]} {other[0]}")


def _relation_object(case: Case) -> Question | None:
    """What is left of the dog? Asked where just one thing lies on that side."""
    places = _places(case)
    # One of two cats has no name of its own, and might be the answer.
    if len(places) != len(case.scene.items) + (case.scene.sign is not None):
        return None
    found = []
    for name, box in places:
        if case.scene.on_photo:
            break
        others = [(other, side_of(b, box)) for other, b in places if other != name]
        for side in OPPOSITE:
            there = [other for other, sides in others if side in sides]
            elsewhere = [other for other, sides in others if OPPOSITE[side] in sides]
            # All others must lie clearly on the opposite side, or they might be meant too.
            if len(there) == 1 and len(elsewhere) == len(others) - 1 and there[0] != "sign":
                found.append((name, side, there[0]))
    if not found:
        return None
    name, side, answer = case.rng.choice(found)
    spoken = case.rng.choice(SPOKEN_SIDES[side])
    text = case.say("what is {side} the {name}?", side=spoken, name=name)
    return Question(text, answer, "relation_object", f"{side} {name}")


def _category(case: Case) -> Question | None:
    """Is there an animal?"""
    rng, scene = case.rng, case.scene
    present = rng.random() < 0.5
    shown = {item.thing.category for item in scene.items}
    if present:
        options = sorted(shown & set(SPOKEN_CATEGORIES))
        weights = [1.0] * len(options)
    else:
        possible = {thing.category for thing in case.vocabulary} & set(SPOKEN_CATEGORIES)
        options = [
            category
            for category in sorted(possible)
            if not any(things.mistakable(item.thing, category) for item in scene.items)
            and not (scene.on_photo and category not in ABSENT_ON_PHOTOS)
        ]
        weights = [WEIGHTS[category] for category in options]
    if not options:
        return None
    category = rng.choices(options, weights)[0]
    text = case.say(
        "is there {a}?", "is there {a} in the picture?", a=SPOKEN_CATEGORIES[category][0]
    )
    return Question(text, "yes" if present else "no", "category", category)


def _count_category(case: Case) -> Question | None:
    """How many animals are there?"""
    counts = Counter(item.thing.category for item in case.scene.items)
    options = []
    for category, number in sorted(counts.items()):
        others = [item.thing for item in case.scene.items if item.thing.category != category]
        fair = not any(things.mistakable(thing, category) for thing in others)
        photo = case.scene.on_photo and category not in ABSENT_ON_PHOTOS
        if category in SPOKEN_CATEGORIES and fair and not photo:
            options.append((category, number))
    if not options:
        return None
    if max(number for _, number in options) == 1 and case.rng.random() < 0.75:
        return None
    category, number = case.rng.choices(options, [number**3 for _, number in options])[0]
    many = SPOKEN_CATEGORIES[category][1]
    text = case.say("how many {many} are there?", "how many {many} can you see?", many=many)
    return Question(text, str(number), "count_category", category)


def _sign(case: Case) -> Question | None:
    """What does the sign say?"""
    if not case.scene.sign:
        return None
    text = case.say(
        "what does the sign say?", "what is written on the sign?", "what is on the sign?"
    )
    return Question(text, case.scene.sign, "sign")


def _name(case: Case) -> Question | None:
    """What is this? Or: what animal is in the picture?"""
    items = case.scene.items
    counts = Counter(item.thing.category for item in items)
    if len(items) == 1 and not case.scene.sign and not case.scene.on_photo:
        return Question(case.say("what is this?", "what is in the picture?"), items[0].name, "name")
    single = [
        item
        for item in items
        if counts[item.thing.category] == 1
        and item.thing.category in ("animal", "vehicle", "instrument", "building", "tool", SHAPE)
        and not any(
            things.mistakable(other.thing, item.thing.category)
            for other in items
            if other is not item
        )
        and not (case.scene.on_photo and item.thing.category not in ABSENT_ON_PHOTOS)
    ]
    if not single:
        return None
    item = case.rng.choice(single)
    kind = SPOKEN_CATEGORIES[item.thing.category][0].split(" ", 1)[1]
    return Question(f"what {kind} is in the picture?", item.name, "name")


LEFT, RIGHT, ABOVE, BELOW = "left", "right", "above", "below"
OPPOSITE = {LEFT: RIGHT, RIGHT: LEFT, ABOVE: BELOW, BELOW: ABOVE}
SPOKEN_SIDES = {
    LEFT: ("left of", "to the left of"),
    RIGHT: ("right of", "to the right of"),
    ABOVE: ("above",),
    BELOW: ("below",),
}


def side_of(one: Box, other: Box) -> list[str]:
    """Returns on which sides of `other` the box `one` lies: a side counts when they are clear."""
    sides = []
    if one[2] <= other[0]:
        sides.append(LEFT)
    if one[0] >= other[2]:
        sides.append(RIGHT)
    if one[3] <= other[1]:
        sides.append(ABOVE)
    if one[1] >= other[3]:
        sides.append(BELOW)
    return sides


def _places(case: Case) -> list[tuple[str, Box]]:
    """Returns name and box of everything whose name means it alone, the sign too."""
    places = [(item.name, item.box) for item in case.named_once()]
    if case.scene.sign and case.scene.sign_box:
        places.append(("sign", case.scene.sign_box))
    return sorted(places)


def _palette(thing: Thing) -> dict[str, things.Colour]:
    return SHAPE_COLOURS if thing.category == SHAPE else COLOURS


ASKERS: dict[str, tuple[float, Callable[[Case], Question | None]]] = {
    "existence": (2.2, _existence),
    "coloured_existence": (1.0, _coloured_existence),
    "count": (0.9, _count),
    "count_kind": (1.8, _count_kind),
    "count_category": (0.5, _count_category),
    "color": (2.0, _colour),
    "of_color": (1.0, _of_colour),
    "relation": (1.8, _relation),
    "relation_object": (2.0, _relation_object),
    "category": (1.3, _category),
    "sign": (1.0, _sign),
    "name": (0.8, _name),
}
