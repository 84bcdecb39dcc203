"""Estimates: the value is exact, the deviation follows the textbook, groups stay together."""

import math

import numpy as np
import pytest

from mmllm.evaluate.metrics.estimate import Estimate, estimate, mean

# 200 resamples know a standard deviation to about 1 / sqrt(400) of it; four of those.
BOOTSTRAP_TOLERANCE = 0.2


def test_a_ratio_of_sums_is_not_a_mean_of_ratios():
    score = estimate(np.array([[1.0, 10.0], [1.0, 1.0]]))
    assert score.value == 2 / 11
    assert score.n == 2


def test_the_deviation_of_a_mean_is_sigma_over_root_n():
    hits = [0.0, 1.0] * 200
    assert mean(hits).std == pytest.approx(0.5 / math.sqrt(400), rel=BOOTSTRAP_TOLERANCE)


def test_equal_questions_about_one_picture_count_once_for_the_deviation():
    hits = np.repeat([0.0, 1.0] * 50, 4)
    pictures = np.repeat(np.arange(100), 4).tolist()
    grouped = mean(hits, groups=pictures)
    assert grouped.value == 0.5
    assert grouped.n == 400
    assert grouped.std == pytest.approx(0.5 / math.sqrt(100), rel=BOOTSTRAP_TOLERANCE)


def test_the_same_examples_give_the_same_estimate():
    assert mean([0.0, 1.0, 1.0]) == mean([0.0, 1.0, 1.0])


def test_without_spread_there_is_no_deviation():
    assert mean([1.0, 1.0]) == Estimate(1.0, "share", 2, 0.0)


def test_it_is_written_with_unit_and_five_digits():
    written = Estimate(1 / 3, "share", 3, 0.1234567).as_dict()
    assert written == {"value": 0.33333, "unit": "share", "n": 3, "std": 0.12346}


def test_no_examples_is_an_error():
    with pytest.raises(ValueError, match="statistics is empty"):
        mean([])


def test_groups_must_be_parallel():
    with pytest.raises(ValueError, match="groups must have 2 entries, got 1"):
        mean([0.0, 1.0], groups=["a"])
