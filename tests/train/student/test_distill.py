"""What a student learns from its teacher: by hand, and what reaches whom."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.train.student import distill
from tests import tiny_run

QUANT = tiny_run.CONFIG.quant
LOG3 = math.log(3.0)
# KL((3/4, 1/4) || (1/2, 1/2)) = log 2 - H(1/4)
APART = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
BATCH = {
    "target_weight": jnp.array([1.0, 1.0, 0.0]),
    "name_target_weight": jnp.array([1.0, 1.0, 1.0]),
}


def outputs(seed: int, **changes):
    draw = np.random.default_rng(seed)
    made = {
        "logits": draw.standard_normal((3, 5)),
        "name_logits": draw.standard_normal((3, 5)),
        "embedding": draw.standard_normal((2, 4)),
        "texts": draw.standard_normal((2, 4)),
        "lines": draw.standard_normal((2, 6, 7)),
    }
    for name in ("embedding", "texts"):
        made[name] /= np.linalg.norm(made[name], axis=-1, keepdims=True)
    return {name: jnp.asarray(value, jnp.float32) for name, value in (made | changes).items()}


def test_divergence_is_from_the_teacher_to_the_student_in_nats():
    sure, even = jnp.array([[LOG3, 0.0]]), jnp.zeros((1, 2))
    np.testing.assert_allclose(distill.divergence(even, sure, 1.0), [APART], rtol=1e-5)
    back = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    np.testing.assert_allclose(distill.divergence(sure, even, 1.0), [back], rtol=1e-5)


def test_temperature_divides_the_logits_and_its_square_multiplies_the_result():
    sure, even = jnp.array([[2 * LOG3, 0.0]]), jnp.zeros((1, 2))
    np.testing.assert_allclose(distill.divergence(even, sure, 2.0), [4 * APART], rtol=1e-5)


def test_a_constant_added_to_all_logits_of_a_row_is_no_difference():
    logits = outputs(0)["logits"]
    np.testing.assert_allclose(distill.divergence(logits + 7.0, logits, 1.0), 0.0, atol=1e-5)


def test_equal_outputs_leave_nothing_to_learn():
    total, parts = distill.losses_of(QUANT, outputs(0), outputs(0), BATCH)
    assert set(parts) == {"distill_logits", "distill_lines", "distill_embeddings"}
    np.testing.assert_allclose([total, *parts.values()], 0.0, atol=1e-6)


def test_tokens_are_means_by_kind_and_a_token_without_weight_is_not_compared():
    teacher = {**outputs(0), "logits": jnp.array([[LOG3, 0.0]] * 3)}
    student = teacher | {"logits": jnp.array([[0.0, 0.0], [LOG3, 0.0], [0.0, 99.0]])}
    _, parts = distill.losses_of(QUANT, student, teacher, BATCH)
    assert float(parts["distill_logits"]) == pytest.approx(APART / 2, rel=1e-5)
    student = student | {"name_logits": jnp.zeros((3, 2))}
    teacher = teacher | {"name_logits": jnp.array([[LOG3, 0.0]] * 3)}
    _, parts = distill.losses_of(QUANT, student, teacher, BATCH)
    assert float(parts["distill_logits"]) == pytest.approx(APART / 2 + APART, rel=1e-5)


def test_lines_are_a_mean_over_columns_and_embeddings_a_cosine_distance():
    lines = np.zeros((1, 4, 2))
    lines[0, 0, 0] = LOG3
    teacher = outputs(0, lines=lines, embedding=np.eye(2, 4), texts=np.eye(2, 4))
    turned = np.array([[0.6, 0.8, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    student = outputs(0, lines=0 * lines, embedding=turned, texts=-np.eye(2, 4))
    total, parts = distill.losses_of(QUANT, student, teacher, BATCH)
    assert float(parts["distill_lines"]) == pytest.approx(APART / 4, rel=1e-5)
    assert float(parts["distill_embeddings"]) == pytest.approx((0.4 + 0.0) / 2 + 2.0, rel=1e-5)
    assert float(total) == pytest.approx(APART / 4 + 2.2, rel=1e-5)


def test_the_total_is_weighted_by_the_config():
    config = dataclasses.replace(
        QUANT, distill_logits=2.0, distill_lines=0.0, distill_embeddings=0.5
    )
    total, parts = distill.losses_of(config, outputs(0), outputs(1), BATCH)
    expected = 2.0 * parts["distill_logits"] + 0.5 * parts["distill_embeddings"]
    assert float(total) == pytest.approx(float(expected), rel=1e-6)


def test_a_batch_without_lines_costs_nothing_for_them():
    none = {"lines": np.zeros((0, 6, 7))}
    _, parts = distill.losses_of(QUANT, outputs(0, **none), outputs(1, **none), BATCH)
    assert parts["distill_lines"] == 0.0


def test_the_student_gets_a_gradient_and_the_teacher_none():
    def loss(student, teacher):
        return distill.losses_of(QUANT, student, teacher, BATCH)[0]

    by_student, by_teacher = jax.grad(loss, argnums=(0, 1))(outputs(0), outputs(1))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(by_student))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(by_teacher))
    np.testing.assert_array_equal(by_student["logits"][2], 0.0)  # of no weight


def test_what_the_mixture_leaves_out_teaches_nothing():
    empty = {
        "logits": jnp.zeros((2, 3)),
        "lines": jnp.zeros((0, 4, 5)),
        "embedding": jnp.ones((2, 4)) / 2,
        "texts": jnp.zeros((0, 4)),
    }
    batch = {"target_weight": jnp.ones(2)}
    total, parts = distill.losses_of(tiny_run.CONFIG.quant, empty, empty, batch)
    assert np.isfinite(float(total))
    assert {float(value) for value in parts.values()} == {0.0}
