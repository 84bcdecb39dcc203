"""The layers against hand-worked numbers and naive second implementations."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmllm.models import layers


def test_dense_is_a_matrix_product_plus_bias():
    params = {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "bias": jnp.array([10.0, 20.0])}
    y = layers.Dense(2).apply({"params": params}, jnp.array([[1.0, -1.0]]))
    np.testing.assert_array_equal(y, [[8.0, 18.0]])


def test_norm_gives_mean_zero_and_variance_one_before_its_scale():
    x = jax.random.normal(jax.random.key(0), (3, 64)) * 5 + 2
    y: Any = layers.Norm().apply({"params": {"scale": jnp.full(64, 2.0)}}, x)
    np.testing.assert_allclose(np.mean(y, -1), 0.0, atol=1e-5)
    np.testing.assert_allclose(np.std(y, -1), 2.0, rtol=1e-5)


def test_affine_scales_and_shifts_each_channel():
    x = jnp.ones((1, 2, 2, 2))
    params = {"scale": jnp.array([2.0, 3.0]), "bias": jnp.array([0.0, -1.0])}
    y = layers.Affine().apply({"params": params}, x)
    np.testing.assert_array_equal(y, np.full((1, 2, 2, 2), 2.0))


def test_embedding_logits_are_products_with_the_same_table():
    table = jnp.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    module = layers.Embed(3, 2)
    rows = module.apply({"params": {"table": table}}, jnp.array([2, 0]))
    np.testing.assert_array_equal(rows, [[1, 1], [1, 0]])
    logits = module.apply({"params": {"table": table}}, rows, method="logits")
    np.testing.assert_array_equal(logits, [[1, 2, 2], [1, 0, 1]])


def test_unit_norm_of_zero_is_zero_and_of_a_vector_is_one_long():
    y = layers.unit_norm(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(y, [[0.6, 0.8], [0.0, 0.0]], atol=1e-6)
