"""The words around the prototypes, and the sentence embeddings of names with their explanations."""

import numpy as np

from mmllm.data import tables
from mmllm.data.lexicons import wordnet
from mmllm.train.text import prototype_texts
from tests import tiny_teacher


def test_the_dictionary_takes_short_plain_words_with_several_senses_first(monkeypatch):
    glosses = [
        ("pear", "a fruit"),
        ("prototypes", "a slope"),
        ("prototypes", "a heap"),
        ("fire engine", "a truck"),
        ("cat-o'-nine-trainable", "a whip"),
        ("bird of paradise flower", "a plant"),
        ("ox", "a beast"),
    ]
    monkeypatch.setattr(wordnet, "noun_glosses", lambda max_senses, categories: glosses)
    words = [
        ("prototypes", "a slope"),
        ("ox", "a beast"),
        ("pear", "a fruit"),
        ("fire engine", "a truck"),
    ]
    assert prototype_texts.dictionary(9) == words
    assert prototype_texts.dictionary(2) == words[:2]


def test_a_mean_embedding_joins_a_name_with_its_explanation():
    model = tiny_teacher.Teacher()
    vectors = prototype_texts.mean_embedding(model, [("bus", "a vehicle"), ("cat", "")])
    joined = model.embed(["bus"]) + model.embed(["bus: a vehicle"])
    np.testing.assert_allclose(vectors[0], joined[0] / np.linalg.norm(joined[0]), atol=1e-6)
    np.testing.assert_allclose(vectors[1], model.embed(["cat"])[0], atol=1e-6)


def table(*captions):
    count = len(captions)
    empty = np.zeros(0)
    others: list[list[tuple[str, str]]] = [[] for _ in captions]
    return tables.CaptionTable(empty, empty, list(captions), [""] * count, others, np.ones(count))


def test_above_the_bound_of_residuals_the_most_frequent_captions_come_first():
    captioned = [table("bus", "cat"), table("Cat", "fox", "fox", "FOX")]
    captions, labels, _ = prototype_texts.join(captioned, max_residuals=3)
    assert list(captions) == ["bus", "cat", "fox"]  # all have a residual: order as it was
    captions, labels, _ = prototype_texts.join(captioned, max_residuals=2)
    assert list(captions) == ["fox", "cat", "bus"]
    assert [label.tolist() for label in labels] == [[2, 1], [1, 0, 0, 0]]
