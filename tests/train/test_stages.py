"""What a quantized run begins with, what it refuses, and how far it has moved."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import nano
from mmllm.common import config as config_lib
from mmllm.common import paths, tensors
from mmllm.data import pipeline, synthetic
from mmllm.quant.rules import Rule
from mmllm.train import align_text, checkpoint, stages
from mmllm.train import state as state_lib
from tests import tiny_run


def ruled(*rules: str, config: config_lib.Config = tiny_run.CONFIG) -> config_lib.Config:
    quant = dataclasses.replace(config.quant, start="tiny", rules=rules)
    return dataclasses.replace(config, quant=quant)


def test_a_plan_holds_the_weights_of_the_whole_model_and_training_those_outside_the_stem():
    rules = (r"backbone/.*/expand/kernel int8", r"backbone/.* float", r"embed/table int4")
    planned = stages.plan(ruled(*rules, config=config_lib.resolve(nano.get_config())))
    backbone = [path for path in planned if path.startswith("backbone/")]
    assert {planned[path].weights for path in backbone} == {"int8"}
    assert len(backbone) == 15  # every block but the first expands
    assert stages.trained(planned) == {"embed/table": Rule("embed/table", "int4")}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("ghost/.* int2", r"^rule 'ghost/\.\*' decides over no parameter"),
        ("embed/.* int3", r"^weights must be one of "),
        ("embed/.*", r"^a rule must be "),
        ("encoder/norm/.* int2", r"^rule 'encoder/norm/\.\*' matches encoder/norm/scale "),
    ],
)
def test_a_rule_that_cannot_work_is_refused_before_training(rule, message):
    with pytest.raises(ValueError, match=message):
        stages.plan(ruled(rule))


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
    assert stages.start_folder(config) == runs / "tiny"
    quant = dataclasses.replace(config.quant, start=str(elsewhere))
    assert stages.start_folder(dataclasses.replace(config, quant=quant)) == elsewhere


def test_a_start_that_was_never_trained_is_named(runs):
    (runs / "tiny").mkdir(parents=True)  # a folder without a run in it
    with pytest.raises(
        FileNotFoundError, match=r"^no run 'tiny' \(quant.start\), neither in .*runs"
    ):
        stages.start_folder(ruled("embed/table int8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("tiny")
    return workdir, tiny_run.make(workdir)


def test_a_teacher_is_the_finished_run_with_its_aligned_tower(finished):
    workdir, state = finished
    teacher = stages.load_teacher(workdir)
    assert set(teacher) == {"model", "prototypes"}
    jax.tree.map(np.testing.assert_array_equal, teacher, dict(state.params))
    aligned = jax.tree.map(lambda leaf: np.asarray(leaf) + 1, state.params["model"]["text_tower"])
    tensors.write(workdir / align_text.TOWER, {"model": {"text_tower": aligned}})
    jax.tree.map(
        np.testing.assert_array_equal, stages.load_teacher(workdir)["model"]["text_tower"], aligned
    )
    (workdir / align_text.TOWER).unlink()


def test_a_teacher_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoints in .*train first"):
        stages.load_teacher(tmp_path)


def test_a_quantized_run_is_no_teacher(tmp_path):
    params = {"model": {"kernel": jnp.ones((2, 2))}, "scales": {"kernel": jnp.ones(2)}}
    student = state_lib.TrainState(step=jnp.int32(1), params=params, opt_state=())
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    arrays = synthetic.training_arrays(tiny_run.CONFIG)
    checkpoints.save(student, pipeline.batches(tiny_run.CONFIG, arrays))
    checkpoints.close()
    with pytest.raises(ValueError, match="holds a quantized run; quant.start must be a float one$"):
        stages.load_teacher(tmp_path)


def test_a_watch_counts_flips_since_the_last_look_and_scales_since_the_start():
    def params(up, up_scale, low=((1.0,), (2.0,)), low_scale=(1.0,)):
        kernels = {"up": up, "low": low}
        scales = {"up": up_scale, "low": low_scale}
        return {
            part: {name: {"kernel": np.array(value, np.float32)} for name, value in each.items()}
            for part, each in (("model", kernels), ("scales", scales))
        }

    planned = {"up/kernel": Rule(".*", "int2"), "low/kernel": Rule(".*", "int4")}
    watch = stages.Watch(planned, params([[1.0, -2.0], [0.2, 0.9]], [2.0, 2.0]))
    first = watch.look(params([[1.0, -2.0], [0.2, 0.9]], [1.0, 1.0]))  # codes 1 -2 0 1
    assert first == {"scale/up/kernel": 0.5, "scale/low/kernel": 1.0}
    second = watch.look(params([[1.0, -0.9], [0.2, 0.9]], [1.0, 2.0]))  # codes 1 0 0 0
    assert second == {
        "flips/up/kernel": 0.5,
        "flips/low/kernel": 0.0,
        "scale/up/kernel": 0.75,
        "scale/low/kernel": 1.0,
    }
    third = params([[1.0, -0.9], [0.6, 0.9]], [1.0, 2.0], low_scale=[4.0])  # codes 1 0 1 0; 0 0
    assert watch.look(third) == {
        "flips/up/kernel": 0.25,
        "flips/low/kernel": 1.0,
        "scale/up/kernel": 0.75,
        "scale/low/kernel": 4.0,
    }


@pytest.mark.parametrize(("share", "steps"), [(1.0, 0), (0.5, 5), (0.25, 8), (0.01, 9)])
def test_the_steps_before_the_share_that_rounds_are_in_float(share, steps):
    config = dataclasses.replace(
        tiny_run.STUDENT,
        train=dataclasses.replace(tiny_run.STUDENT.train, steps=10),
        quant=dataclasses.replace(tiny_run.STUDENT.quant, share=share),
    )
    assert stages.float_steps(config) == steps


def test_a_start_must_be_finished_and_of_the_same_model(tmp_path):
    align = dataclasses.replace(tiny_run.CONFIG.align, steps=1)
    train = dataclasses.replace(tiny_run.CONFIG.train, steps=3)
    config = dataclasses.replace(tiny_run.CONFIG, align=align, train=train)
    workdir = tmp_path / "start"
    tiny_run.make(workdir, config)
    with pytest.raises(FileNotFoundError, match="no tower.safetensors in .*finish the run first"):
        stages.check_start(config, workdir)
    tensors.write(workdir / align_text.TOWER, {"model": {"text_tower": {"a": np.ones(1)}}})
    stages.check_start(config, workdir)
    model = dataclasses.replace(config.model, decoder_blocks=config.model.decoder_blocks + 1)
    with pytest.raises(ValueError, match="has another model.decoder_blocks than this config"):
        stages.check_start(dataclasses.replace(config, model=model), workdir)
    values = json.loads((workdir / "config.json").read_text())
    values["train"]["steps"] += 1
    (workdir / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"stands at step \d+ of \d+; finish it first"):
        stages.check_start(config, workdir)


def test_static_inputs_of_the_backbone_are_refused_with_the_plan():
    rules = (r"backbone/.*/expand/kernel int8 int8_static", r"backbone/.* float")
    config = ruled(*rules, config=config_lib.resolve(nano.get_config()))
    with pytest.raises(ValueError, match="must not round the inputs of backbone/block_1/expand"):
        stages.plan(config)


def test_an_unknown_start_of_scales_is_refused_with_the_plan():
    config = ruled("embed/table int8")
    quant = dataclasses.replace(config.quant, scale_start="max")
    with pytest.raises(ValueError, match="quant.scale_start must be one of mse, rms, absmean"):
        stages.plan(dataclasses.replace(config, quant=quant))
