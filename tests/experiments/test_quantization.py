"""Which rows are trained, in which order, and which are known already."""

import numpy as np
import pytest

from configs.quant import ablation
from experiments import quantization, runner
from mmllm.common import config as config_lib
from mmllm.evaluate import artifact_tables
from tests.evaluate.test_tables import score


def test_rounding_alone_comes_first_and_headlines_have_more_seeds():
    found = list(quantization.jobs(["int2", "int2_rms", "float"], [0, 1]))
    assert found == [
        ("float_start", 0),
        ("int2_ptq", 0),
        ("int2", 0),
        ("int2_rms", 0),
        ("float", 0),
        ("int2", 1),
        ("float", 1),
    ]
    assert list(quantization.jobs(["int2", "int2_rms"], [1])) == [("int2", 1)]


@pytest.mark.parametrize("row", ablation.ROWS)
def test_every_row_has_a_config_of_its_own(row):
    config = quantization.config_of(row, 1)
    assert config.seed == 1
    assert config.name.endswith("_1")
    others = [quantization.config_of(other, 1) for other in ablation.ROWS if other != row]
    assert config_lib.sha256(config) not in {config_lib.sha256(other) for other in others}


def test_an_unknown_row_is_refused():
    with pytest.raises(ValueError, match="row must be one of float, int8, .*got 'int3'"):
        ablation.get_config("int3")


def test_every_row_stands_in_the_table():
    rounded = {row + quantization.PTQ for row in quantization.ROUNDED}
    assert {"float_start", *rounded, *ablation.ROWS} == set(artifact_tables.QUANTIZED)
    assert {row.name: metric for row, metric in quantization.MEASURED.items()} == dict(
        artifact_tables.TASKS.values()
    )


def test_an_error_rate_counts_as_what_it_leaves_of_one():
    names = [row.name for row in quantization.MEASURED]
    values = dict(zip(names, (0.6, 0.4, 0.1, 0.5), strict=True))
    scores = {name: score(value) for name, value in values.items()}
    assert quantization.average(scores) == pytest.approx((0.6 + 0.4 + 0.9 + 0.5) / 4)


def test_a_row_is_known_with_its_config_and_start_only():
    job = {"row": "int2", "seed": 0, "start": "b", "config_sha256": "a"}
    found = [{**job, "average": 0.5}]
    assert quantization.known(job, found)
    for key, value in (("row", "int2_ptq"), ("seed", 1), ("start", "c"), ("config_sha256", "b")):
        assert not quantization.known({**job, key: value}, found)


def test_rows_take_the_place_of_their_like_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path))
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    monkeypatch.setattr(quantization.figures, "draw_quantization", lambda result, path: None)
    entry = {"row": "int2", "seed": 0, "start": "b", "average": 0.5}
    for change in ({}, {"start": None}, {"seed": 1}, {"average": 0.6}):
        quantization.add({**entry, **change})
    found = [(row["seed"], row["start"], row["average"]) for row in quantization.finished()]
    assert found == [(0, None, 0.5), (1, "b", 0.5), (0, "b", 0.6)]


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
