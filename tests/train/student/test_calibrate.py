"""Static ranges: every linear layer gets one, the model stays near the float one, training runs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm import bundle
from mmllm.common import tensors
from mmllm.data import synthetic
from mmllm.export import from_run
from mmllm.models import mmllm as model_lib
from mmllm.quant import rules, tree
from mmllm.runtime.engines.jax import JaxEngine
from mmllm.train import state as state_lib
from mmllm.train.phases import multitask, prepare
from mmllm.train.student import calibrate, plan
from tests import tiny_bundle, tiny_run

STATIC = dataclasses.replace(
    tiny_run.STUDENT,
    quant=dataclasses.replace(
        tiny_run.STUDENT.quant,
        rules=(
            r"decoder/.*/(key|value|up)/kernel int2 int8_static",
            r"embed/table int8 int8_static",
            r"text_tower/project/kernel ternary int8_static rms",
            r".*/kernel float int8_static",
        ),
    ),
)
RULES = rules.parse(STATIC.quant.rules)


@pytest.fixture(scope="module")
def arrays():
    return synthetic.training_arrays(tiny_run.CONFIG)


@pytest.fixture(scope="module")
def teacher():
    return jax.device_get(state_lib.init_params(tiny_run.CONFIG, synthetic.CAPTIONS))


def flat(params):
    return dict(tensors.flatten(params["model"]))


@pytest.mark.slow
def test_every_linear_layer_gets_the_range_of_its_inputs(teacher, arrays):
    got = calibrate.calibrated(STATIC, teacher, arrays)
    wanted = model_lib.init_params(STATIC.model, jax.random.key(0), RULES)
    assert set(flat(got)) == set(dict(tensors.flatten(wanted)))
    assert all(np.array_equal(flat(got)[path], value) for path, value in flat(teacher).items())
    ranges = {path: float(v) for path, v in flat(got).items() if path.endswith("/amax")}
    assert len(ranges) == sum(p.endswith(("/kernel", "/table")) for p in flat(teacher))
    assert len(set(ranges.values())) > len(ranges) // 2

    features = jnp.float32(arrays.captioned["emoji"].features[0])
    float_, static = (
        model_lib.build(STATIC.model, used).apply(
            {"params": jax.tree.map(jnp.asarray, dict(params["model"]))},
            features,
            method="embed_features",
        )
        for used, params in (((), teacher), (RULES, got))
    )
    apart = np.linalg.norm(np.asarray(float_) - np.asarray(static), axis=1)
    assert 0 < apart.max() < 0.05


@pytest.mark.slow
def test_a_bundle_keeps_the_ranges_and_runs(teacher, arrays, tmp_path, monkeypatch):
    tiny_run.pretend_built(monkeypatch)
    tiny_bundle.train_tokenizer(tmp_path / prepare.TOKENIZER)
    start = calibrate.calibrated(STATIC, teacher, arrays)
    weights = plan.trained(STATIC).weights
    scales = tree.init_scales(start["model"], weights, STATIC.quant.scale_start)
    params = {"model": start["model"], "scales": scales}
    made = from_run.write(STATIC, params, tmp_path, tmp_path / "bundle")
    ids = np.array([[9, 20, 21, 3]], np.int32)
    static = JaxEngine(bundle.load(made)).embed_text(ids)
    rules_ = tuple(rule.replace(" int8_static", "") for rule in STATIC.quant.rules)
    plain = dataclasses.replace(STATIC, quant=dataclasses.replace(STATIC.quant, rules=rules_))
    made = from_run.write(
        plain, {**params, "model": teacher["model"]}, tmp_path, tmp_path / "plain"
    )
    whole = JaxEngine(bundle.load(made)).embed_text(ids)
    assert 0 < np.linalg.norm(static - whole) < 0.1


def test_a_float_or_dynamic_student_takes_its_teacher_as_it_is(teacher, arrays):
    assert calibrate.calibrated(tiny_run.STUDENT, teacher, arrays) is teacher


@pytest.mark.slow
def test_training_leaves_the_ranges_alone(teacher, arrays, tmp_path):
    start = calibrate.calibrated(STATIC, teacher, arrays)
    config = dataclasses.replace(STATIC, train=dataclasses.replace(STATIC.train, steps=2))
    state = multitask.train(config, arrays, tmp_path, teacher=start, report=lambda line: None)
    after = dict(tensors.flatten(jax.device_get(state.params["model"])))
    for path, value in flat(start).items():
        if path.endswith("/amax"):
            np.testing.assert_array_equal(after[path], value)
    assert (after["embed/table"] != flat(start)["embed/table"]).any()


def test_a_layer_that_no_task_reaches_is_named(teacher, arrays):
    batch = dataclasses.replace(STATIC.batch, lines=0)
    with pytest.raises(ValueError, match="inputs of line_.* as int8_static, but no task"):
        calibrate.calibrated(dataclasses.replace(STATIC, batch=batch), teacher, arrays)
