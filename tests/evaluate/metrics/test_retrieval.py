"""Recall@k with several right candidates: by hand, with ties, against sorting and chance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmllm.evaluate.metrics.retrieval import best_rank, chance, hits


def test_ranks_by_hand():
    similarity = np.array([[0.9, 0.5, 0.1], [0.2, 0.3, 0.8]])
    relevant = np.array([[False, True, False], [True, True, False]])
    assert best_rank(similarity, relevant).tolist() == [2, 2]


def test_the_best_of_several_right_candidates_counts():
    assert best_rank(np.array([[0.1, 0.9, 0.5]]), np.array([[True, True, False]])).tolist() == [1]


def test_equal_scores_earn_nothing():
    similarity = np.zeros((1, 5))
    relevant = np.array([[True, False, False, False, False]])
    assert best_rank(similarity, relevant).tolist() == [5]
    assert hits(similarity, relevant)[1].tolist() == [0.0]


def test_right_candidates_do_not_push_each_other_back():
    relevant = np.array([[True, True, True, False]])
    assert best_rank(np.array([[0.5, 0.5, 0.5, 0.1]]), relevant).tolist() == [1]


scores = hnp.arrays(np.float64, (3, 6), elements=st.floats(-1, 1), unique=True)
labels = hnp.arrays(np.bool_, (3, 6))


@settings(deadline=None)
@given(scores, labels)
def test_hits_equal_looking_into_the_first_k(similarity: np.ndarray, relevant: np.ndarray):
    relevant[:, 2] = True
    for k, found in hits(similarity, relevant, ks=(1, 3, 6)).items():
        first = np.argsort(-similarity, axis=1)[:, :k]
        assert found.tolist() == np.take_along_axis(relevant, first, 1).any(1).tolist()


def test_chance_by_hand():
    relevant = np.zeros((2, 10), bool)
    relevant[0, 0] = relevant[1, :2] = True
    expected = chance(relevant, ks=(1, 5, 10, 20))
    assert expected[1].tolist() == pytest.approx([0.1, 0.2])
    assert expected[5].tolist() == pytest.approx(
        [0.5, 1 - 8 * 7 * 6 * 5 * 4 / (10 * 9 * 8 * 7 * 6)]
    )
    assert expected[10].tolist() == expected[20].tolist() == [1.0, 1.0]


def test_bad_scores_and_labels_are_errors():
    right = np.array([[True, False]])
    with pytest.raises(ValueError, match="query 0 has no relevant candidate"):
        best_rank(np.array([[0.1, 0.2]]), np.array([[False, False]]))
    with pytest.raises(ValueError, match="NaN"):
        best_rank(np.array([[np.nan, 0.2]]), right)
