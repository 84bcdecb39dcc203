"""The float run a student starts from: found by name, whole, and the one that is asked for."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.quant import int2
from experiments.training import float_start
from mmllm import bundle
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


@pytest.mark.parametrize(
    ("text", "name", "wanted"),
    [
        ("", "", ""),
        ("nano", "nano", ""),
        ("nano@0123456789ab", "nano", "0123456789ab"),
        ("/home/me@work/run", "/home/me@work/run", ""),
        ("/home/me@work/run@0123456789ab", "/home/me@work/run", "0123456789ab"),
        ("nano@latest", "nano@latest", ""),  # no fingerprint: a run of that name is looked for
    ],
)
def test_a_start_may_name_the_fingerprint_of_its_weights(text, name, wanted):
    rules = tiny_run.STUDENT.quant.rules if text else ()
    quant = dataclasses.replace(tiny_run.STUDENT.quant, start=text, rules=rules)
    assert start.named(dataclasses.replace(tiny_run.STUDENT, quant=quant)) == (name, wanted)


def test_a_fingerprint_is_of_the_weights_as_a_bundle_holds_them():
    weights = {"a": {"kernel": np.array([[0.1, 0.2]], np.float32)}, "b": np.ones(2, np.float32)}
    known = start.fingerprint({"model": weights, "prototypes": {"residual": np.ones(3)}})
    half = {"a": {"kernel": np.float16([[0.1, 0.2]])}, "b": np.ones(2, np.float16)}
    assert start.fingerprint({"model": half}) == known
    assert len(known) == start.DIGITS
    moved = {**weights, "b": np.array([1.0, 1.01], np.float32)}
    assert start.fingerprint({"model": moved}) != known
    assert start.fingerprint({"model": {"a": weights["a"], "c": weights["b"]}}) != known


def test_the_start_that_ships_is_the_one_that_configs_name():
    held = bundle.load(float_start.BUNDLE).params
    model = {name: part for name, part in held.items() if name != "backbone"}
    config = config_lib.resolve(int2.get_config())
    assert start.named(config) == ("nano", start.fingerprint({"model": model}))
