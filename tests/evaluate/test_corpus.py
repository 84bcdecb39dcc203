"""Draws and batches of records are reproducible and complete."""

import numpy as np
import pytest

from mmllm.evaluate import corpus as corpus_lib


def test_captions_are_grouped_by_language():
    record = {"languages": ["en", "de", "en"], "captions": ["A  Cat", "Katze", "kitty"]}
    assert corpus_lib.captions(record) == {"en": ["A  Cat", "kitty"], "de": ["Katze"]}
    assert corpus_lib.names(corpus_lib.captions(record)) == ["a cat", "kitty"]


def test_a_single_caption_is_english():
    assert corpus_lib.captions({"caption": "a bus"}) == {"en": ["a bus"]}


def test_questions_without_kinds_have_the_empty_kind():
    record = {"questions": ["q"], "answers": ["a"]}
    assert corpus_lib.questions(record) == [("q", "a", "")]


def test_keywords_split_at_bars():
    assert corpus_lib.keywords({"keywords": "cat|pet animal"}) == ["cat", "pet animal"]
    assert corpus_lib.keywords({"keywords": ""}) == corpus_lib.keywords({}) == []


def test_a_draw_is_the_same_every_time_and_in_order():
    drawn = corpus_lib.draw(1000, 10)
    assert drawn == sorted(drawn) == corpus_lib.draw(1000, 10)
    assert len(set(drawn)) == 10


@pytest.mark.parametrize("most", [None, 3, 7])
def test_a_draw_of_all_is_all(most: int | None):
    assert corpus_lib.draw(3, most) == [0, 1, 2]


def test_names_are_drawn_whatever_the_order_of_the_set():
    names = [f"name {i}" for i in range(50)]
    assert corpus_lib.draw_names(set(names), 7) == corpus_lib.draw_names({*sorted(names)}, 7)


def test_batches_cover_everything_once():
    assert [list(part) for part in corpus_lib.batches(range(5), 2)] == [[0, 1], [2, 3], [4]]


def test_embedding_holds_one_batch_at_a_time():
    sizes = []

    def embed(pictures: list) -> np.ndarray:
        sizes.append(len(pictures))
        return np.array([[p] for p in pictures], float)

    source = [{"image": i} for i in range(150)]
    assert corpus_lib.in_batches(source, range(150), embed)[:, 0].tolist() == list(range(150))
    assert sizes == [64, 64, 22]
    with pytest.raises(ValueError, match="indices is empty"):
        corpus_lib.in_batches(source, [], embed)
