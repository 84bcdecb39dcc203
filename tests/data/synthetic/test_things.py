import pytest

from mmllm.data import splits
from mmllm.data.synthetic import things
from mmllm.data.synthetic.things import Thing


def test_the_list_is_read_whole():
    found = things.things()
    assert len(found) > 300
    assert {thing.category for thing in found} <= set(things.WEIGHTS)
    for thing in found:
        assert thing.name == thing.name.strip()
        assert thing.name
        assert not set(thing.concept + thing.name + thing.kind_of) & set(":,=<\n")
    assert Thing("clothing", "woman’s hat", "hat") in found
    assert Thing("animal", "duck", "duck", "bird") in found


def test_no_name_is_both_trained_on_and_held_out():
    names = {}
    for thing in things.things():
        names.setdefault(thing.name, set()).add(splits.concept_split(thing.concept))
    assert [name for name, sides in names.items() if {"train", "test"} <= sides] == []


def test_there_are_things_on_both_sides():
    sides = [splits.concept_split(thing.concept) for thing in things.things()]
    assert sides.count("train") > 200
    assert sides.count("test") > 50


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("dog", "dogs"),
        ("bus", "buses"),
        ("fox", "foxes"),
        ("cherry", "cherries"),
        ("monkey", "monkeys"),
        ("mouse", "mice"),
        ("fish", "fish"),
        ("snowman", "snowmen"),
        ("slice of pizza", "slices of pizza"),
        ("pair of jeans", "pairs of jeans"),
        ("palm tree", "palm trees"),
        ("brush", "brushes"),
    ],
)
def test_plurals(one, many):
    assert things.plural(one) == many


@pytest.mark.parametrize("name", ["an orange", "a dog", "an eagle", "a unicorn", "an x-ray"])
def test_articles(name):
    assert things.with_article(name.split(" ", 1)[1]) == name


def test_a_duck_and_a_bird_are_related_but_a_duck_and_an_owl_are_not():
    duck, owl = (Thing("animal", name, name, "bird") for name in ("duck", "owl"))
    bird = Thing("animal", "bird", "bird")
    assert things.related(duck, bird)
    assert things.related(bird, duck)
    assert things.related(duck, duck)
    assert not things.related(duck, owl)


def test_what_a_stranger_might_mistake():
    assert things.mistakable(Thing("animal", "crab", "crab"), "food")
    assert things.mistakable(Thing("food", "pear", "pear"), "plant")
    assert not things.mistakable(Thing("vehicle", "bus", "bus"), "animal")
