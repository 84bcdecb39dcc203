"""What a quantized run begins with, what it refuses, and how far it has moved."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.common import config as config_lib
from mmllm.common import paths, tensors
from mmllm.data import pipeline, synthetic
from mmllm.train import checkpoint
from mmllm.train import run as run_lib
from mmllm.train import state as state_lib
from mmllm.train.student import start
from tests import tiny_run


def ruled(*rules: str, config: config_lib.Config = tiny_run.CONFIG) -> config_lib.Config:
    quant = dataclasses.replace(config.quant, start="tiny", rules=rules)
    return dataclasses.replace(config, quant=quant)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The folder of runs, in a data folder that is empty."""
    monkeypatch.setenv(paths.ENVIRONMENT_VARIABLE, str(tmp_path))
    return tmp_path / "runs"


def test_a_start_is_found_by_the_name_of_its_run_and_by_its_folder(runs, tmp_path):
    config = ruled("embed/table int8")
    elsewhere = tmp_path / "elsewhere"
    for folder in (runs / "tiny", elsewhere):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    assert start.folder(config) == runs / "tiny"
    quant = dataclasses.replace(config.quant, start=str(elsewhere))
    assert start.folder(dataclasses.replace(config, quant=quant)) == elsewhere


def test_a_start_that_was_never_trained_is_named(runs):
    (runs / "tiny").mkdir(parents=True)  # a folder without a run in it
    with pytest.raises(
        FileNotFoundError, match=r"^no run 'tiny' \(quant.start\), neither in .*runs"
    ):
        start.folder(ruled("embed/table int8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("tiny")
    return workdir, tiny_run.make(workdir)


def test_a_teacher_is_the_finished_run_with_its_aligned_tower(finished):
    workdir, state = finished
    teacher = start.load(workdir)
    assert set(teacher) == {"model", "prototypes"}
    jax.tree.map(np.testing.assert_array_equal, teacher, dict(state.params))
    aligned = jax.tree.map(lambda leaf: np.asarray(leaf) + 1, state.params["model"]["text_tower"])
    tensors.write(workdir / run_lib.TOWER, {"model": {"text_tower": aligned}})
    jax.tree.map(np.testing.assert_array_equal, start.load(workdir)["model"]["text_tower"], aligned)
    (workdir / run_lib.TOWER).unlink()


def test_a_teacher_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoints in .*train first"):
        start.load(tmp_path)


def test_a_quantized_run_is_no_teacher(tmp_path):
    params = {"model": {"kernel": jnp.ones((2, 2))}, "scales": {"kernel": jnp.ones(2)}}
    student = state_lib.TrainState(step=jnp.int32(1), params=params, opt_state=())
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    arrays = synthetic.training_arrays(tiny_run.CONFIG)
    checkpoints.save(student, pipeline.batches(tiny_run.CONFIG, arrays))
    checkpoints.close()
    with pytest.raises(ValueError, match="holds a quantized run; quant.start must be a float one$"):
        start.load(tmp_path)


def test_a_start_must_be_finished_and_of_the_same_model(tmp_path):
    align = dataclasses.replace(tiny_run.CONFIG.align, steps=1)
    train = dataclasses.replace(tiny_run.CONFIG.train, steps=3)  # as `tiny_run.make` leaves it
    config = dataclasses.replace(tiny_run.CONFIG, align=align, train=train)
    workdir = tmp_path / "start"
    tiny_run.make(workdir, config)
    with pytest.raises(FileNotFoundError, match="no tower.safetensors in .*finish the run first"):
        start.check(config, workdir)
    tensors.write(workdir / run_lib.TOWER, {"model": {"text_tower": {"a": np.ones(1)}}})
    start.check(config, workdir)
    model = dataclasses.replace(config.model, decoder_blocks=config.model.decoder_blocks + 1)
    with pytest.raises(ValueError, match="has another model.decoder_blocks than this config"):
        start.check(dataclasses.replace(config, model=model), workdir)
    values = json.loads((workdir / "config.json").read_text())
    values["train"]["steps"] += 1
    (workdir / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"stands at step \d+ of \d+; finish it first"):
        start.check(config, workdir)
