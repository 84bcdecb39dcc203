import random
import string

from hypothesis import given, settings
from hypothesis import strategies as st

from mmllm.data.charset import CHARSET
from mmllm.data.synthetic import phrases

VOCABULARY = ("apple", "river", "Ohio", "it's", "we", "extraordinarily", "go")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_texts_are_short_clean_and_drawable(seed):
    text = phrases.Phrases(VOCABULARY).draw(random.Random(seed))
    assert 1 <= len(text) <= phrases.MAX_CHARACTERS
    assert text == text.strip()
    assert set(text) <= set(CHARSET)


def test_the_same_seed_gives_the_same_text():
    source = phrases.Phrases(VOCABULARY)
    texts = [[source.draw(random.Random(seed)) for seed in range(50)] for _ in range(2)]
    assert texts[0] == texts[1]


def test_texts_are_various():
    source, rng = phrases.Phrases(VOCABULARY), random.Random(0)
    texts = [source.draw(rng) for _ in range(2000)]
    assert set(CHARSET) == set("".join(texts))
    assert sum(any(c in string.digits for c in text) for text in texts) > 200
    assert sum(text.isupper() for text in texts) > 200
    assert sum(" " in text for text in texts) > 500


def test_a_word_is_on_one_side_in_every_form():
    for word in ("house", "River", "apple"):
        assert phrases.word_split(word) == phrases.word_split(word.upper())
        assert phrases.word_split(word) == phrases.word_split(word + "'s")


def test_about_a_tenth_of_the_words_are_for_tests():
    sides = [phrases.word_split(f"word{i}") for i in range(3000)]
    assert 0.08 < sides.count("test") / 3000 < 0.12
    assert 0.01 < sides.count("val") / 3000 < 0.03


def test_words_of_the_splits_are_disjoint_ascii_and_short(toy_fonts):
    phrases.words.cache_clear()
    found = {split: set(phrases.words(split)) for split in ("train", "val", "test")}
    phrases.words.cache_clear()
    assert found["train"]
    assert found["test"]
    assert not found["train"] & found["test"]
    assert not found["train"] & found["val"]
    assert all(word.isascii() for words in found.values() for word in words)


def test_case_styles():
    styles = [phrases.cased("red APPLE pie", x) for x in (0.1, 0.45, 0.6, 0.8, 0.95)]
    assert styles == [
        "red apple pie",
        "Red APPLE pie",
        "Red APPLE Pie",
        "RED APPLE PIE",
        "red APPLE pie",
    ]
