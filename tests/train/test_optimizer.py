"""The schedule by hand, and which parameters decay."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import nano
from mmllm.common import config as config_lib
from mmllm.common import mesh
from mmllm.train import optimizer
from tests import tiny_run

TRAIN = dataclasses.replace(
    tiny_run.CONFIG.train, steps=20, warmup_steps=4, learning_rate=0.4, weight_decay=0.5
)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.0), (1, 0.1), (2, 0.2), (4, 0.4), (12, 0.202), (20, 0.004), (99, 0.004)],
    ids=["start", "warming up", "half warm", "peak", "half way down", "end", "after the end"],
)
def test_the_rate_rises_in_a_line_and_falls_in_a_cosine(step, expected):
    assert np.asarray(optimizer.learning_rate(TRAIN)(step)) == pytest.approx(expected, rel=1e-5)


def test_a_run_shorter_than_its_warm_up_still_has_a_schedule():
    short = dataclasses.replace(TRAIN, steps=2)
    assert np.asarray(optimizer.learning_rate(short)(2)) == pytest.approx(0.2, rel=1e-5)


def test_matrices_and_the_residual_decay_and_nothing_else():
    shapes = jax.eval_shape(lambda: tiny_run.fresh_state()).params
    decays = optimizer.decays(shapes)
    names: dict[bool, set[str]] = {True: set(), False: set()}
    for path, wanted in jax.tree_util.tree_leaves_with_path(decays):
        names[wanted].add(mesh.path_name(path).split("/")[-1])
    # The residual is pulled to zero: what the sentence map can say, it shall say.
    assert names[True] == {"kernel", "residual"}
    assert names[False] == {"scale", "bias", "row", "column", "table", "log_scale"}


def test_without_gradient_only_decay_moves_a_matrix():
    params = {"kernel": jnp.array([[2.0]]), "bias": jnp.array([2.0])}
    update = optimizer.make(TRAIN)
    state = update.init(params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    _, state = update.update(zeros, state, params)  # rate 0
    updates: Any = update.update(zeros, state, params)[0]  # rate .1
    np.testing.assert_allclose(updates["kernel"], [[-0.1 * 0.5 * 2.0]], rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], [0.0])


def test_a_gradient_is_clipped_to_the_norm_before_adam_sees_it():
    params = {"bias": jnp.zeros(2)}
    update = optimizer.make(TRAIN)
    _, state = update.update({"bias": jnp.array([300.0, 400.0])}, update.init(params), params)
    first_moment = next(leaf for leaf in jax.tree.leaves(state) if leaf.shape == (2,))
    np.testing.assert_allclose(first_moment, [0.1 * 0.6, 0.1 * 0.8], rtol=1e-5)


def test_the_scales_of_a_student_have_their_own_rate_and_no_decay():
    params = {
        "model": {"kernel": jnp.array([[2.0]])},
        "scales": {"up": {"kernel": jnp.array([2.0])}},
    }
    steady = jax.tree.map(lambda leaf: jnp.full_like(leaf, 3.0), params)

    def moves(scale_rate, gradients) -> Any:
        update = optimizer.make(TRAIN, scale_rate)
        _, state = update.update(gradients, update.init(params), params)  # rate 0
        return update.update(gradients, state, params)[0]  # rate .1

    still = jax.tree.map(jnp.zeros_like, params)
    np.testing.assert_array_equal(moves(0.25, still)["scales"]["up"]["kernel"], [0.0])
    np.testing.assert_allclose(moves(0.25, still)["model"]["kernel"], [[-0.1 * 0.5 * 2.0]], 1e-6)
    # A gradient that never changes makes Adam's step the rate itself.
    moved = moves(0.25, steady)
    np.testing.assert_allclose(moved["scales"]["up"]["kernel"], [-0.25 * 0.1], rtol=1e-5)
    np.testing.assert_allclose(moved["model"]["kernel"], [[-0.1 - 0.1 * 0.5 * 2.0]], rtol=1e-5)
    plain = moves(None, steady)
    np.testing.assert_allclose(plain["scales"]["up"]["kernel"], [-0.1], rtol=1e-5)
    assert moves(0.0, steady)["scales"]["up"]["kernel"] == 0.0  # scales may stand still


def test_the_schedules_of_the_phases_are_those_of_optax():
    config = config_lib.resolve(nano.get_config())
    for section, expected in (
        (config.tune, optax.warmup_cosine_decay_schedule(0.0, 3e-4, 120, 2_400, 0.01 * 3e-4)),
        (config.tune.head, optax.warmup_cosine_decay_schedule(0.0, 2e-3, 75, 1_500, 0.01 * 2e-3)),
        (config.align, optax.warmup_cosine_decay_schedule(0.0, 2e-3, 75, 1_500)),
        (config.regain, optax.cosine_decay_schedule(1e-2, 3_000)),
    ):
        found = optimizer.learning_rate(section)
        for step in (0, 1, 60, 75, 120, 1_000, 2_399):
            assert np.array_equal(found(step), expected(step)), (section, step)


def test_no_decay_and_no_clipping_is_plain_adam():
    section = config_lib.RegainConfig(steps=10, learning_rate=0.1)
    params = {"kernel": jnp.array([[2.0, -1.0]])}
    gradient = {"kernel": jnp.array([[300.0, -0.2]])}
    plain = optax.adam(optax.cosine_decay_schedule(0.1, 10), b2=0.98)
    updates = []
    for tx in (optimizer.make(section), plain):
        state = tx.init(params)
        for _ in range(3):
            update, state = tx.update(gradient, state, params)
        updates.append(update["kernel"])
    np.testing.assert_array_equal(*updates)
