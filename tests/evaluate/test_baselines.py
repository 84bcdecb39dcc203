"""Baselines learn from training examples only and break ties the same way every time."""

from pathlib import Path

import numpy as np
import pytest

from mmllm.evaluate import baselines


def test_the_majority_breaks_ties_by_the_alphabet():
    assert baselines.majority(["b", "a", "b", "a", "c"]) == "a"
    with pytest.raises(ValueError, match="there is no majority"):
        baselines.majority([])


def test_question_only_answers_go_from_the_question_to_its_kind_to_any():
    guess = baselines.QuestionOnly(
        ["How many cats?", "how many cats", "how many dogs?", "any bus?"],
        ["2", "2", "1", "yes"],
        ["count", "count", "count", "exists"],
    )
    assert guess.answer("how many dogs ?", "count") == "1"
    assert guess.answer("how many cows?", "count") == "2"
    assert guess.answer("what is it?", "unheard of") == guess.overall == "2"


def test_chance_draws_the_same_places_every_time():
    places = baselines.random_places(10, 1000)
    assert places == baselines.random_places(10, 1000)
    assert set(places) == set(range(10))


FEATURES = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
CAPTIONS = [{"en": ["Cat"], "de": ["Katze"]}, {"en": ["bus"]}, {"en": ["cat"]}]


def test_the_nearest_training_picture_lends_its_caption():
    memory = baselines.Neighbours(FEATURES, CAPTIONS)
    assert memory.nearest(FEATURES).tolist() == [0, 1, 2]
    assert memory.captions(np.array([[0.9, 0.1], [0.1, 0.0]])) == ["bus", "Cat"]
    assert memory.captions(np.array([[0.9, 0.1], [0.1, 0.0]]), "de") == ["", "Katze"]


def test_a_name_is_as_near_as_its_nearest_picture():
    memory = baselines.Neighbours(FEATURES, CAPTIONS)
    scores = memory.similarity(FEATURES, ["bus", "cat"])
    assert np.argmax(scores, axis=1).tolist() == [1, 0, 1]
    assert scores[2, 1] == pytest.approx(1.0)


def test_unknown_names_have_no_neighbour():
    memory = baselines.Neighbours(FEATURES, CAPTIONS)
    assert memory.knows(["cat", "bus"])
    assert not memory.knows(["cat", "tree"])
    with pytest.raises(ValueError, match=r"without training picture: \['tree'\]"):
        memory.similarity(FEATURES, ["tree"])


def test_features_and_captions_must_be_parallel():
    with pytest.raises(ValueError, match="got 3 and 1"):
        baselines.Neighbours(FEATURES, CAPTIONS[:1])


def test_features_of_a_split_are_computed_once(tmp_path: Path):
    calls = []

    def features(pictures: list) -> np.ndarray:
        calls.append(len(pictures))
        return np.array([[float(p)] for p in pictures])

    source = [{"image": i} for i in range(3)]
    store = tmp_path / "features" / "emoji.npy"
    first = baselines.remembered(source, features, store)
    assert (
        baselines.remembered(source, features, store).tolist() == first.tolist() == [[0], [1], [2]]
    )
    assert calls == [3]
    assert [path.name for path in store.parent.iterdir()] == ["emoji.npy"]
