"""Error rates against hand-worked values and the laws of an edit distance."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmllm.evaluate.metrics.text import (
    character_errors,
    edit_distance,
    exact_lines,
    word_errors,
)

words = st.text("ab c", max_size=7)


def naive_distance(first: str, second: str) -> int:
    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        change = distance(i - 1, j - 1) + (first[i - 1] != second[j - 1])
        return min(change, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(first), len(second))


@pytest.mark.parametrize(
    ("first", "second", "edits"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("flaw", "lawn", 2), ("same", "same", 0)],
)
def test_known_distances(first: str, second: str, edits: int):
    assert edit_distance(first, second) == edits == edit_distance(second, first)


@settings(deadline=None)
@given(words, words)
def test_the_distance_equals_its_recursive_definition(first: str, second: str):
    assert edit_distance(first, second) == naive_distance(first, second)


def test_characters_and_words_by_hand():
    assert character_errors(["helo wrld", "x"], ["hello world", "a"]).tolist() == [[2, 11], [1, 1]]
    assert word_errors(["helo world now"], ["hello world"]).tolist() == [[2, 2]]


def test_spaces_are_folded_and_accents_composed_but_case_counts():
    assert character_errors(["  a   b "], ["a b"])[0, 0] == 0
    assert character_errors(["cafe\u0301"], ["caf\u00e9"]).tolist() == [[0, 4]]
    assert exact_lines(["A", "a "], ["a", "a"]).tolist() == [0.0, 1.0]


def test_reading_too_much_gives_more_than_all_errors():
    assert character_errors(["abcdef"], ["xy"]).tolist() == [[6, 2]]


@pytest.mark.parametrize("metric", [character_errors, word_errors, exact_lines])
def test_blank_references_and_odd_lengths_are_errors(metric):
    with pytest.raises(ValueError, match=r"references\[1\] is blank"):
        metric(["a", "b"], ["a", " "])
    with pytest.raises(ValueError, match="must be parallel, got 1 and 2"):
        metric(["a"], ["a", "b"])
