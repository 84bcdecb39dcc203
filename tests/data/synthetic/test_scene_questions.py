import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from mmllm.data.synthetic import scene_questions, scenes, things
from mmllm.data.synthetic.scene_questions import ABOVE, BELOW, LEFT, RIGHT, Case
from mmllm.data.synthetic.scenes import Item, Scene
from mmllm.data.synthetic.things import Thing

CAT = Thing("animal", "cat", "cat")
DOG = Thing("animal", "dog", "dog")
DUCK = Thing("animal", "duck", "duck", "bird")
BIRD = Thing("animal", "bird", "bird")
BUS = Thing("vehicle", "bus", "bus")
PEAR = Thing("food", "pear", "pear")
STAR = Thing("shape", "star", "star")
VOCABULARY = (CAT, DOG, DUCK, BIRD, BUS, PEAR, STAR)
TOP_LEFT, TOP_RIGHT = (0, 0, 60, 60), (120, 0, 180, 60)
BOTTOM_LEFT = (0, 120, 60, 180)


def scene(*items, sign=None, on_photo=False):
    box = (130, 130, 200, 170) if sign else None
    blank = np.zeros((224, 224, 3), np.uint8)
    return Scene(blank, tuple(Item(*item) for item in items), sign, box, on_photo, ())


def every_question(shown, seeds=1500):
    """All questions that a scene can get, text -> (answer, kind)."""
    questions = {}
    for seed in range(seeds):
        for question in scene_questions.ask(shown, VOCABULARY, random.Random(seed)):
            answer, _ = questions.setdefault(question.text, (question.answer, question.kind))
            assert answer == question.answer, question.text
    return questions


def test_sides_count_only_when_clear():
    assert scene_questions.side_of(TOP_LEFT, TOP_RIGHT) == [LEFT]
    assert scene_questions.side_of(TOP_RIGHT, BOTTOM_LEFT) == [RIGHT, ABOVE]
    assert scene_questions.side_of(BOTTOM_LEFT, TOP_LEFT) == [BELOW]
    assert scene_questions.side_of(TOP_LEFT, (50, 10, 110, 70)) == []


def test_a_scene_of_two_is_asked_about_rightly():
    questions = every_question(scene((CAT, "red", TOP_LEFT), (BUS, None, TOP_RIGHT)))
    expected = {
        "is there a cat?": "yes",
        "is there a dog?": "no",
        "is there a red cat?": "yes",
        "is there a blue cat?": "no",
        "how many objects are there?": "2",
        "how many cats are there?": "1",
        "how many dogs are there?": "0",
        "what color is the cat?": "red",
        "is the bus right of the cat?": "yes",
        "is the bus to the left of the cat?": "no",
        "what is left of the bus?": "cat",
        "is there an animal?": "yes",
        "is there food?": "no",
        "how many animals are there?": "1",
        "what animal is in the picture?": "cat",
    }
    assert {text: questions[text][0] for text in expected} == expected
    assert not any("above" in text or "below" in text for text in questions)
    assert not any("color is the bus" in text for text in questions)


def test_nobody_is_asked_about_a_bird_beside_a_duck():
    questions = every_question(scene((DUCK, None, TOP_LEFT)))
    assert not any("bird" in text for text in questions)
    assert questions["is there a duck?"][0] == "yes"


def test_a_plant_is_not_denied_beside_food():
    vocabulary = (*VOCABULARY, Thing("plant", "rose", "rose"))
    for seed in range(200):
        shown = scene((PEAR, None, TOP_LEFT))
        for question in scene_questions.ask(shown, vocabulary, random.Random(seed)):
            assert "plant" not in question.text


def test_photographs_are_not_asked_about_what_they_may_show():
    shown = scene((CAT, None, TOP_LEFT), on_photo=True)
    questions = every_question(shown)
    assert questions["is there a dog?"][0] == "no"
    absent = ("bus", "vehicle", "objects", "this")
    assert not any(word in text for text in questions for word in absent)


def test_a_sign_is_always_read():
    shown = scene((CAT, None, TOP_LEFT), sign="stop")
    for seed in range(50):
        questions = scene_questions.ask(shown, VOCABULARY, random.Random(seed))
        assert ("stop", "sign") in {(question.answer, question.kind) for question in questions}
    questions = every_question(shown)
    assert questions["is there a sign?"][0] == "yes"
    assert questions["is the cat above the sign?"][0] == "yes"
    assert not any("objects" in text for text in questions)


def test_repeated_things_have_no_single_place_or_colour():
    questions = every_question(scene((CAT, "red", TOP_LEFT), (CAT, "blue", TOP_RIGHT)))
    assert questions["how many cats are there?"][0] == "2"
    assert not any("what color" in text or "left of" in text for text in questions)
    assert questions["is there a blue cat?"][0] == "yes"


def test_the_thing_of_a_colour_is_asked_for_only_if_it_is_alone():
    coloured = scene((CAT, "red", TOP_LEFT), (STAR, "blue", TOP_RIGHT))
    assert every_question(coloured)["what is the red object?"][0] == "cat"
    natural = scene((CAT, "red", TOP_LEFT), (BUS, None, TOP_RIGHT))
    assert not any("object?" in text for text in every_question(natural))


@pytest.mark.parametrize(
    ("items", "sign", "text"),
    [
        ([(CAT, None, TOP_LEFT)], None, "a cat"),
        ([(CAT, None, TOP_RIGHT), (CAT, None, TOP_LEFT)], None, "two cats"),
        ([(BUS, "orange", TOP_LEFT), (CAT, None, TOP_RIGHT)], None, "an orange bus and a cat"),
        ([(CAT, "red", TOP_RIGHT), (BUS, None, TOP_LEFT)], None, "a bus and a red cat"),
        ([(CAT, None, TOP_LEFT)], "stop", "a cat and a sign that says stop"),
    ],
)
def test_captions_go_from_left_to_right(items, sign, text):
    assert scene_questions.caption(scene(*items, sign=sign)) == text


def test_questions_are_many_short_and_of_known_kinds(toy_studio):
    rng = random.Random(0)
    vocabulary = tuple(toy_studio.vocabulary())
    kinds = set(scene_questions.ASKERS)
    for _ in range(60):
        questions = scene_questions.ask(scenes.compose(toy_studio, rng), vocabulary, rng)
        assert 3 <= len(questions) <= scene_questions.QUESTIONS_A_SCENE
        assert len({question.text for question in questions}) == len(questions)
        for question in questions:
            assert question.kind in kinds
            assert question.text.endswith("?")
            assert question.text == question.text.lower()
            assert len(question.text) < 80
            assert question.answer == question.answer.lower().strip() != ""


def test_yes_and_no_come_evenly(toy_studio):
    rng = random.Random(1)
    vocabulary = tuple(toy_studio.vocabulary())
    answers = defaultdict(Counter)
    for _ in range(250):
        for question in scene_questions.ask(scenes.compose(toy_studio, rng), vocabulary, rng):
            answers[question.kind][question.answer] += 1
    for kind in ("existence", "relation"):
        yes, no = answers[kind]["yes"], answers[kind]["no"]
        assert 0.4 < yes / (yes + no) < 0.6, kind


def test_what_is_absent_is_never_related_to_what_is_shown():
    shown = scene((DUCK, None, TOP_LEFT), (CAT, None, TOP_RIGHT))
    for seed in range(100):
        thing = Case(shown, VOCABULARY, random.Random(seed)).absent()
        assert not any(things.related(thing, item.thing) for item in shown.items)
