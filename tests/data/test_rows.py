"""Packed rows and their targets, by hand."""

import numpy as np
import pytest

from mmllm.data import rows as rows_lib


def rows_of(texts, firsts, width):
    return rows_lib.pack([[np.array(text) for text in row] for row in texts], firsts, width)


def test_texts_are_packed_behind_one_another_and_what_does_not_fit_is_left_out():
    rows = rows_of([[[5, 6, 0], [7, 8, 9], [4, 3, 0]], [[2, 1, 0]]], [[0, 1, 0], [1]], 4)
    assert rows.ids.tolist() == [[5, 6, 4, 3], [2, 1, 0, 0]]
    assert rows.start.tolist() == [[0, 0, 2, 2], [0, 0, 2, 3]]
    assert rows.first.tolist() == [[0, 0, 2, 2], [1, 1, 2, 3]]


def test_targets_are_the_next_tokens_of_the_same_text_from_the_answer_on():
    rows = rows_of([[[5, 11, 3], [7, 8, 12, 3]], [[6]]], [[0, 1], [0]], 7)
    found = rows_lib.targets(rows, room=5)
    # 11 and 3 from places 0 and 1; the second text starts at its <ans>; the last is too short.
    expected = {
        "position": [0, 1, 4, 5, 0],
        "target": [11, 3, 12, 3, 0],
        "target_weight": [1, 1, 1, 1, 0],
        "target_row": [0, 0, 0, 0, 0],
    }
    assert {name: found[name].tolist() for name in expected} == expected
    np.testing.assert_array_equal(found["ids"], rows.ids)
    np.testing.assert_array_equal(found["start"], rows.start)


def test_more_targets_than_room_are_refused_with_the_field_to_raise():
    rows = rows_of([[[1, 1, 1, 1]], [[1, 1, 1, 1]]], [[0], [0]], 4)
    assert rows_lib.targets(rows, room=6)["target_weight"].all()
    message = "data.answer_tokens leaves room for 5 targets a step, got 6: raise it"
    with pytest.raises(ValueError, match=message):
        rows_lib.targets(rows, room=5)
