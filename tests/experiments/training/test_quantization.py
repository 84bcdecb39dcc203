"""What stands for a row: the scores of four tasks, and the weights it starts from."""

import numpy as np
import pytest

from experiments import rows as rows_lib
from experiments.tables.benchmark import TASKS
from experiments.training import quantization
from tests.evaluate.test_scores import score


def test_an_error_rate_counts_as_what_it_leaves_of_one():
    names = [row.name for row in quantization.MEASURED]
    values = dict(zip(names, (0.6, 0.4, 0.1, 0.5), strict=True))
    scores = {name: score(value) for name, value in values.items()}
    assert quantization.average(scores) == pytest.approx((0.6 + 0.4 + 0.9 + 0.5) / 4)


def test_the_fingerprint_is_that_of_the_weights_as_shipped():
    params = {"model": {"up": {"kernel": np.full((2, 2), 0.1, np.float32)}}}
    first = quantization.fingerprint(params)
    params["model"]["up"]["kernel"] += 1e-6  # float16 does not see it
    assert quantization.fingerprint(params) == first
    params["model"]["up"]["kernel"] += 0.1
    assert quantization.fingerprint(params) != first


@pytest.mark.slow
def test_two_rows_train_two_steps_each():
    quantization.smoke()


def test_the_scores_are_those_that_the_table_shows():
    measured = {row.name: metric for row, metric in quantization.MEASURED.items()}
    assert measured == dict(TASKS.values())


@pytest.mark.slow
def test_a_smoke_run_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path))
    monkeypatch.setattr(rows_lib, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["quantization", "--smoke"])
    quantization.main()
    assert not list(tmp_path.glob("*.json"))
