"""The first state of a run: what is in it, and that the seed alone decides it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import nano
from mmllm.common import config as config_lib
from mmllm.data import synthetic
from mmllm.quant import grid, scale
from mmllm.train import optimizer
from mmllm.train import state as state_lib
from mmllm.train.student import plan
from mmllm.train.text import prototypes as prototypes_lib
from tests import tiny_run

INT8 = grid.GRIDS["int8"]


def test_a_fresh_state_holds_model_bank_and_step_zero():
    state = tiny_run.fresh_state()
    assert int(state.step) == 0
    assert set(state.params) == {"model", "prototypes"}
    params = state.params["prototypes"]
    width = tiny_run.CONFIG.model.embed_dim
    assert params["residual"].shape == (synthetic.CAPTIONS, width)
    assert params["project"]["kernel"].shape == (prototypes_lib.TEACHER_WIDTH, width)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_the_seed_decides_every_bit():
    config = tiny_run.CONFIG
    first, again = (tiny_run.fresh_state(config) for _ in range(2))
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)
    changed = tiny_run.fresh_state(dataclasses.replace(config, seed=1))
    assert (
        changed.params["prototypes"]["residual"] != first.params["prototypes"]["residual"]
    ).any()


def test_statistics_of_the_features_start_its_affine():
    channels = tiny_run.CONFIG.model.feature_channels
    affine = {"scale": np.full(channels, 2.0), "bias": np.full(channels, -1.0)}
    start = {"model": {"feature_affine": affine}}
    params = state_lib.init_params(tiny_run.CONFIG, synthetic.CAPTIONS, start)["model"]
    np.testing.assert_array_equal(params["feature_affine"]["scale"], affine["scale"])
    np.testing.assert_array_equal(params["feature_affine"]["bias"], affine["bias"])


def test_the_frozen_backbone_is_not_trained():
    config = config_lib.resolve(nano.get_config())
    params = jax.eval_shape(lambda: state_lib.init_params(config, 10))
    assert config.model.backbone == "efficientnet_lite0"
    assert "backbone" not in params["model"]
    assert params["model"]["feature_affine"]["scale"].shape == (config.model.feature_channels,)


def test_a_start_takes_the_place_of_fresh_parameters():
    shape = (tiny_run.CONFIG.model.width,)
    start = {"model": {"encoder": {"norm": {"scale": np.full(shape, 3.0, np.float32)}}}}
    fresh = state_lib.init_params(tiny_run.CONFIG, synthetic.CAPTIONS)
    params = state_lib.init_params(tiny_run.CONFIG, synthetic.CAPTIONS, start)
    np.testing.assert_array_equal(params["model"]["encoder"]["norm"]["scale"], 3.0)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), fresh, params)
    assert not same["model"]["encoder"]["norm"]["scale"]
    same["model"]["encoder"]["norm"]["scale"] = True
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize(
    "start",
    [
        {"model": {"encoder": {"norm": {"scale": np.ones(7)}}}},
        {"model": {"encoder": {"norm": {"gain": np.ones(32)}}}},
        {"model": {"encoder": np.ones(32)}},
    ],
    ids=["shape", "name", "a leaf for a branch"],
)
def test_a_start_that_does_not_fit_is_refused(start):
    with pytest.raises(ValueError, match="start parameter model/encoder.* does not fit the model"):
        state_lib.init_params(tiny_run.CONFIG, synthetic.CAPTIONS, start)


def test_a_student_begins_as_its_teacher_with_the_scales_of_what_it_rounds():
    config = tiny_run.STUDENT
    teacher = jax.device_get(state_lib.init_params(tiny_run.CONFIG, synthetic.CAPTIONS))
    tx = optimizer.make(config.train, config.quant.scale_rate)
    student = state_lib.init_student(config, plan.trained(config).weights, teacher, tx)
    assert int(student.step) == 0
    assert set(student.params) == {"model", "scales"}
    jax.tree.map(np.testing.assert_array_equal, student.params["model"], teacher["model"])
    scales = student.params["scales"]
    assert set(scales) == {"embed", "decoder"}  # that of the tower is a statistic
    table = scale.absmean_scale(jnp.asarray(teacher["model"]["embed"]["table"].T), INT8)
    np.testing.assert_array_equal(scales["embed"]["table"], table)
    moments = student.opt_state[1][0].mu
    assert jax.tree.structure(moments) == jax.tree.structure(student.params)
