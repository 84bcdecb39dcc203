"""Which rows of the ablation are trained, in which order, with which config and label."""

import pytest

from configs.quant import ablation
from experiments.training import ablations
from mmllm.common import config as config_lib


def test_ptq_comes_first_and_some_rows_have_more_seeds():
    found = list(ablations.jobs(["int2", "int2_rms", "float"], [0, 1]))
    assert found == [
        ("float_start", 0),
        ("int2_ptq", 0),
        ("int2", 0),
        ("int2_rms", 0),
        ("float", 0),
        ("int2", 1),
        ("float", 1),
    ]
    assert list(ablations.jobs(["int2", "int2_rms"], [1])) == [("int2", 1)]


@pytest.mark.parametrize("row", ablation.ROWS)
def test_every_row_has_a_config_of_its_own(row):
    config = ablations.config_of(row, 1)
    assert config.seed == 1
    assert config.name.endswith("_1")
    others = [ablations.config_of(other, 1) for other in ablation.ROWS if other != row]
    assert config_lib.sha256(config) not in {config_lib.sha256(other) for other in others}


def test_an_unknown_row_is_refused():
    with pytest.raises(ValueError, match="row must be one of float, int8, .*got 'int3'"):
        ablation.get_config("int3")


def test_every_row_has_a_label_and_its_ptq_one_beside_it():
    labels = ablations.labels()
    ptq = {row + ablations.PTQ for row, each in ablation.ROWS.items() if each["ptq"]}
    assert set(labels) == {ablations.FLOAT_START, *ptq, *ablation.ROWS}
    assert labels["int8_ptq"] == ("8", "PTQ")
    assert all(bits and what for bits, what in labels.values())


def test_a_new_row_needs_one_edit(monkeypatch):
    row = {"bits": "2", "what": "fewer steps", "ptq": "", "seeds": 1}
    row["change"] = lambda cfg: cfg.train.update(steps=7)
    monkeypatch.setitem(ablation.ROWS, "int2_short", row)
    assert ("int2_short", 0) in list(ablations.jobs(list(ablation.ROWS)))
    assert ablations.config_of("int2_short", 0).train.steps == 7
    assert ablations.labels()["int2_short"] == ("2", "fewer steps")
