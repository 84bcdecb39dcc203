"""The folder of a run: bound to one config, and read as a whole."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mmllm.common import tensors
from mmllm.train import run as run_lib
from tests import tiny_run

CONFIG = tiny_run.CONFIG


def test_a_run_of_another_config_is_refused(tmp_path):
    run_lib.claim(tmp_path, CONFIG)
    run_lib.claim(tmp_path, CONFIG)
    train = dataclasses.replace(CONFIG.train, learning_rate=1e-4)
    with pytest.raises(ValueError, match="run of another config .differs in train."):
        run_lib.claim(tmp_path, dataclasses.replace(CONFIG, train=train))


def test_a_run_from_before_a_field_came_goes_on(tmp_path):
    run_lib.claim(tmp_path, CONFIG)
    path = tmp_path / run_lib.CONFIG
    old = json.loads(path.read_text())
    del old["quant"]["share"], old["regain"], old["train"]["patience"]
    path.write_text(json.dumps(old))
    run_lib.claim(tmp_path, CONFIG)


def test_a_damaged_config_is_named(tmp_path):
    (tmp_path / run_lib.CONFIG).write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON .*use another --workdir"):
        run_lib.claim(tmp_path, CONFIG)


def test_the_aligned_tower_takes_the_place_of_the_run_s_own(tmp_path):
    tower = {"model": {"text_tower": {"a": np.ones(2, np.float32)}}}
    tensors.write(tmp_path / run_lib.TOWER, tower)
    params = {"model": {"text_tower": {"a": np.zeros(2)}, "embed": {"b": np.zeros(1)}}}
    joined = run_lib.joined(params, tmp_path / run_lib.TOWER)["model"]
    np.testing.assert_array_equal(joined["text_tower"]["a"], 1.0)
    np.testing.assert_array_equal(joined["embed"]["b"], 0.0)


def test_a_summary_keeps_what_is_known_already(tmp_path):
    run_lib.summarize(tmp_path, {"best_step": 3})
    run_lib.summarize(tmp_path, {"step": 9})
    summary = json.loads((tmp_path / run_lib.SUMMARY).read_text())
    assert summary == {"best_step": 3, "step": 9}


@pytest.mark.parametrize(("every", "validates"), [(0, False), (5, True), (99, False)])
def test_a_run_validates_where_it_comes_to_a_validation(every, validates):
    train = dataclasses.replace(CONFIG.train, steps=20, validate_every=every)
    config = dataclasses.replace(CONFIG, train=train)
    assert run_lib.Run(config=config, workdir=Path("run")).validates == validates
