"""What a question of easy_vqa is counted as."""

import pytest

from experiments import rows as rows_lib
from experiments.training import limits


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("what color is the circle?", "red", "color, to be named"),
        ("what is the gray shape?", "triangle", "shape, to be named"),
        ("is there a circle?", "yes", "shape, yes or no"),
        ("does the image not contain a circle?", "no", "shape, yes or no, negated"),
        ("is no red shape present?", "yes", "color, yes or no, negated"),
    ],
)
def test_a_question_is_sorted_by_what_it_asks(question, answer, expected):
    assert limits.kind(question, answer) == expected


def test_the_committed_rows_are_those_that_are_measured():
    measured = {row["row"] for row in rows_lib.read("limits")["rows"]}
    assert measured == {part.label for part in limits.parts()}


def test_every_kind_of_question_has_a_row():
    assert len(limits.KINDS) == 6
    pairs = [("what color is the circle?", "red"), ("is no red shape present?", "yes")]
    assert {limits.kind(question, answer) for question, answer in pairs} <= set(limits.KINDS)
