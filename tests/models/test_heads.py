"""The heads against naive second implementations, and what padding may not change."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tiny
from mmllm.common import config as config_lib
from mmllm.models import heads, layers

CONFIG = config_lib.resolve(tiny.get_config()).model
TOLERANCE = 1e-5  # float32, two orders of summation
TOWER = heads.TextTower(CONFIG)


@pytest.fixture(scope="module")
def text():
    return jax.random.normal(jax.random.key(0), (2, 4, CONFIG.width))


@pytest.fixture(scope="module")
def tower_params(text):
    return jax.jit(TOWER.init)(jax.random.key(1), text, jnp.ones((2, 4), bool))["params"]


@functools.partial(jax.jit, static_argnums=0)
def apply(module, params, *arguments) -> Any:
    return module.apply({"params": params}, *arguments)


def embed(params, text, real) -> Any:
    return apply(TOWER, params, text, jnp.asarray(real))


def test_an_image_embedding_is_two_layers_over_the_mean_and_the_maximum_of_the_features():
    features = jax.random.normal(jax.random.key(0), (2, 3, 3, 5))
    module = heads.ImageEmbedding(CONFIG)
    params = jax.jit(module.init)(jax.random.key(2), features)["params"]
    flat = np.asarray(features).reshape(2, 9, 5)
    pooled = jnp.asarray(np.concatenate([flat.mean(1), flat.max(1)], axis=-1))
    mlp = layers.Mlp(CONFIG.head_width, CONFIG.embed_dim)
    total = np.asarray(apply(mlp, params["short"], pooled))
    expected = total / np.linalg.norm(total, axis=-1, keepdims=True)
    np.testing.assert_allclose(apply(module, params, features), expected, atol=TOLERANCE)


def test_an_image_embedding_does_not_depend_on_where_a_feature_lies():
    features = jax.random.normal(jax.random.key(0), (1, 3, 3, 5))
    module = heads.ImageEmbedding(CONFIG)
    params = jax.jit(module.init)(jax.random.key(2), features)["params"]
    mirrored = apply(module, params, features[:, ::-1, ::-1])
    np.testing.assert_allclose(apply(module, params, features), mirrored, atol=TOLERANCE)


def test_the_gradient_of_a_maximum_goes_to_the_first_place_that_has_it():
    features = jnp.array([[[[1.0, 5.0], [3.0, 5.0]], [[3.0, -1.0], [2.0, 0.0]]]])
    np.testing.assert_array_equal(heads.max_pool(features), [[3.0, 5.0]])
    expected = np.zeros(features.shape)
    expected[0, 0, 1, 0], expected[0, 0, 0, 1] = 7.0, -2.0
    found = jax.grad(lambda x: jnp.sum(heads.max_pool(x) * jnp.array([[7.0, -2.0]])))(features)
    np.testing.assert_array_equal(found, expected)


def test_the_gradient_of_a_maximum_is_finite_however_its_features_are_computed():
    features = jax.random.normal(jax.random.key(0), (8, 3, 3, 64))
    scale, bias = jax.random.normal(jax.random.key(1), (2, 64))

    def loss(scale):
        scaled = features * scale[None, None, None] + bias[None, None, None]
        # The mean is what lets XLA compute the features a second time.
        return jnp.sum(jnp.sin(scaled.mean((1, 2)))) + jnp.sum(jnp.sin(heads.max_pool(scaled)))

    flat = np.asarray(features, np.float64).reshape(8, 9, 64)
    scaled = flat * np.asarray(scale) + np.asarray(bias)
    chosen = np.take_along_axis(flat, scaled.argmax(1)[:, None], 1)[:, 0]
    expected = np.cos(scaled.mean(1)) * flat.mean(1) + np.cos(scaled.max(1)) * chosen
    for level in (0, 3):
        options = {"xla_backend_optimization_level": level}
        slope = jax.jit(jax.grad(loss)).lower(scale).compile(options)
        np.testing.assert_allclose(slope(scale), expected.sum(0), rtol=1e-4, atol=1e-5)


def test_a_text_embedding_has_unit_length_and_depends_on_every_real_token(tower_params, text):
    real = np.ones((2, 4), bool)
    before = embed(tower_params, text, real)
    np.testing.assert_allclose(np.linalg.norm(before, axis=-1), 1.0, atol=TOLERANCE)
    for place in range(4):
        after = embed(tower_params, text.at[:, place].multiply(-2.0), real)
        assert np.abs(np.asarray(after - before)).max(-1).min() > 1e-4


def test_a_padded_token_changes_nothing(tower_params, text):
    real = np.array([[True, True, True, False]] * 2)
    before = embed(tower_params, text, real)
    np.testing.assert_array_equal(before, embed(tower_params, text.at[:, 3].set(7.0), real))
    np.testing.assert_allclose(
        before, embed(tower_params, text[:, :3], real[:, :3]), atol=TOLERANCE
    )


def test_a_row_of_padding_alone_gives_zero_and_not_nan(tower_params, text):
    found = embed(tower_params, text, np.array([[True] * 4, [False] * 4]))
    np.testing.assert_array_equal(found[1], np.zeros(CONFIG.embed_dim))
    assert np.isfinite(found).all()


def test_word_order_reaches_the_text_embedding(tower_params, text):
    real = np.ones((2, 4), bool)
    difference = embed(tower_params, text, real) - embed(tower_params, text[:, ::-1], real)
    assert np.abs(np.asarray(difference)).max() > 1e-4


def test_line_logits_are_one_dense_layer_with_a_class_more_than_the_charset():
    encoded = jax.random.normal(jax.random.key(0), (2, 3, CONFIG.width))
    module = heads.LineReader(CONFIG)
    params = jax.jit(module.init)(jax.random.key(1), encoded)["params"]
    found = apply(module, params, encoded)
    assert found.shape == (2, 3, CONFIG.charset_size + 1)
    kernel, bias = (np.asarray(params["project"][name]) for name in ("kernel", "bias"))
    np.testing.assert_allclose(found, np.asarray(encoded) @ kernel + bias, atol=TOLERANCE)
