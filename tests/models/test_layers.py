"""The layers against hand-worked numbers and naive second implementations."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmllm.models import layers
from mmllm.quant import fake_quant
from mmllm.quant.rules import Rule

PER_TOKEN = (Rule(".*", "float", "int8"),)
PER_TENSOR = (Rule(".*", "float", "int8_static"),)


def test_dense_is_a_matrix_product_plus_bias():
    params = {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "bias": jnp.array([10.0, 20.0])}
    y = layers.QuantDense(2).apply({"params": params}, jnp.array([[1.0, -1.0]]))
    np.testing.assert_array_equal(y, [[8.0, 18.0]])


def test_int8_activations_are_rounded_row_by_row_before_the_product():
    x = jax.random.normal(jax.random.key(0), (2, 3, 8)) * jnp.array([[[1.0], [30.0], [0.1]]])
    kernel = jax.random.normal(jax.random.key(1), (8, 4))
    params = {"kernel": kernel, "bias": jnp.arange(4.0)}
    y = layers.QuantDense(4, PER_TOKEN).apply({"params": params}, x)
    rounded = jnp.dot(fake_quant.fake_quant_per_token(x).reshape(6, 8), kernel).reshape(2, 3, 4)
    np.testing.assert_array_equal(y, rounded + jnp.arange(4.0)[None, None])
    assert np.any(y != layers.QuantDense(4).apply({"params": params}, x))


def test_int8_activations_of_an_mlp_are_rounded_before_both_layers():
    x = jax.random.normal(jax.random.key(0), (3, 8))
    params = jax.jit(layers.Mlp(16, 4).init)(jax.random.key(1), x)["params"]
    up, down = ({"params": params[name]} for name in ("up", "down"))
    hidden = layers.QuantDense(16).apply(up, fake_quant.fake_quant_per_token(x))
    hidden = fake_quant.fake_quant_per_token(jax.nn.gelu(hidden, approximate=True))
    y = layers.Mlp(16, 4, PER_TOKEN).apply({"params": params}, x)
    np.testing.assert_allclose(y, layers.QuantDense(4).apply(down, hidden), atol=1e-6)


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
    module = layers.QuantEmbed(3, 2)
    rows = module.apply({"params": {"table": table}}, jnp.array([2, 0]))
    np.testing.assert_array_equal(rows, [[1, 1], [1, 0]])
    logits = module.apply({"params": {"table": table}}, rows, method="logits")
    np.testing.assert_array_equal(logits, [[1, 2, 2], [1, 0, 1]])


def test_an_exported_embedding_looks_up_the_same_rows():
    table = jax.random.normal(jax.random.key(0), (7, 4))
    ids = jnp.array([[6, 0, 3], [3, 3, 1]])
    rows = layers.QuantEmbed(7, 4, exported=True).apply({"params": {"table": table}}, ids)
    np.testing.assert_array_equal(rows, np.asarray(table)[np.asarray(ids)])


def test_logits_round_what_is_looked_for_and_a_lookup_rounds_nothing():
    table = jax.random.normal(jax.random.key(0), (7, 4))
    module, params = layers.QuantEmbed(7, 4, PER_TOKEN), {"params": {"table": table}}
    x = jax.random.normal(jax.random.key(1), (3, 4))
    logits = module.apply(params, x, method="logits")
    np.testing.assert_array_equal(logits, jnp.dot(fake_quant.fake_quant_per_token(x), table.T))
    np.testing.assert_array_equal(module.apply(params, jnp.array([2])), table[2:3])


def test_unit_norm_of_zero_is_zero_and_of_a_vector_is_one_long():
    y = layers.unit_norm(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(y, [[0.6, 0.8], [0.0, 0.0]], atol=1e-6)


def test_static_int8_activations_are_rounded_by_one_range():
    x = jax.random.normal(jax.random.key(0), (3, 8)) * jnp.array([[1.0], [30.0], [0.1]])
    params = {"kernel": jnp.eye(8), "amax": jnp.array(12.7)}
    y = layers.QuantDense(8, PER_TENSOR, use_bias=False).apply({"params": params}, x)
    np.testing.assert_allclose(y, np.clip(np.round(x / 0.1), -127, 127) * 0.1, atol=1e-5)
    table = {"table": jnp.eye(8), "amax": jnp.array(12.7)}
    module = layers.QuantEmbed(8, 8, PER_TENSOR)
    np.testing.assert_array_equal(module.apply({"params": table}, x, method="logits"), y)
