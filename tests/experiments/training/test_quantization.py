"""What stands for a row: the scores of four tasks, and the weights it starts from."""

import pytest

from experiments import rows as rows_lib
from experiments.tables.benchmark import TASKS
from experiments.training import ablations, quantization
from tests.evaluate.test_scores import score


def test_an_error_rate_counts_as_what_it_leaves_of_one():
    names = [row.name for row in quantization.MEASURED]
    values = dict(zip(names, (0.6, 0.4, 0.1, 0.5), strict=True))
    scores = {name: score(value) for name, value in values.items()}
    assert quantization.average(scores) == pytest.approx((0.6 + 0.4 + 0.9 + 0.5) / 4)


@pytest.mark.slow
def test_two_rows_train_two_steps_each():
    for name in ("int2", "float"):
        quantization.smoke(rows_lib.Row(name=name, config=ablations.config_of(name, 0)))


def test_the_scores_are_those_that_the_table_shows():
    measured = {row.name: metric for row, metric in quantization.MEASURED.items()}
    assert measured == dict(TASKS.values())


@pytest.mark.parametrize(
    ("arguments", "smoked"),
    [([], ["int2", "float"]), (["--rows", "ternary", "mixed"], ["ternary", "mixed"])],
)
def test_a_smoke_run_tries_the_rows_it_is_given(arguments, smoked, monkeypatch):
    found = []
    monkeypatch.setattr("sys.argv", ["quantization", "--smoke", *arguments])
    monkeypatch.setattr(
        quantization.runner, "run", lambda kind, rows, measure, *, smoke: found.extend(rows)
    )
    quantization.main()
    assert [row.name for row in found] == smoked


@pytest.mark.slow
def test_a_smoke_run_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path))
    monkeypatch.setattr(rows_lib, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["quantization", "--smoke"])
    quantization.main()
    assert not list(tmp_path.glob("*.json"))
