"""How pictures and lines become tokens: by hand where it is cutting, against loops elsewhere."""

import functools
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from configs import tiny
from mmllm.common import config as config_lib
from mmllm.models import layers, vit

CONFIG = config_lib.resolve(tiny.get_config()).model
TOLERANCE = 1e-5  # float32, two orders of summation


@functools.partial(jax.jit, static_argnums=0)
def apply(module, params, *arguments) -> Any:
    return module.apply({"params": params}, *arguments)


def line_tokens(params, lines) -> Any:
    return apply(vit.LineTokens(CONFIG), params, lines)


@pytest.fixture(scope="module")
def line_params():
    lines = jnp.zeros((1, CONFIG.line_height, CONFIG.line_width))
    return jax.jit(vit.LineTokens(CONFIG).init)(jax.random.key(0), lines)["params"]


def test_a_picture_is_cut_into_patches_row_by_row():
    # 4 x 4 pixels, each with its own number in all three channels.
    pixels = jnp.arange(16.0).reshape(1, 4, 4, 1).repeat(3, axis=-1)
    found = vit.patches(pixels, 2)
    assert found.shape == (1, 2, 2, 12)
    np.testing.assert_array_equal(found[0, 0, 0], np.repeat([0, 1, 4, 5], 3))
    np.testing.assert_array_equal(found[0, 0, 1], np.repeat([2, 3, 6, 7], 3))
    np.testing.assert_array_equal(found[0, 1, 0], np.repeat([8, 9, 12, 13], 3))


def test_four_features_are_merged_in_reading_order():
    features = jnp.arange(4.0).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(vit.merge_features(features, 2), [[[[0, 1, 2, 3]]]])


def test_an_odd_edge_is_filled_with_zeros():
    features = jnp.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    expected = [[[1, 2, 4, 5], [3, 0, 6, 0]], [[7, 8, 0, 0], [9, 0, 0, 0]]]
    np.testing.assert_array_equal(vit.merge_features(features, 2)[0], expected)


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(strategies.integers(1, 6), strategies.integers(1, 3))
def test_merging_moves_features_and_loses_none(grid, side):
    features = np.arange(1.0, 2 * grid * grid + 1, dtype=np.float32).reshape(1, grid, grid, 2)
    merged = np.asarray(vit.merge_features(jnp.asarray(features), side))
    assert merged.shape == (1, -(-grid // side), -(-grid // side), side * side * 2)
    np.testing.assert_array_equal(np.sort(merged[merged != 0]), np.sort(features.ravel()))
    for y in range(grid):
        for x in range(grid):
            place = 2 * (y % side * side + x % side)
            found = merged[0, y // side, x // side, place : place + 2]
            np.testing.assert_array_equal(found, features[0, y, x])


def test_a_position_is_the_sum_of_its_row_and_its_column():
    params = {"row": jnp.array([[10.0], [20.0]]), "column": jnp.array([[1.0], [2.0], [3.0]])}
    found = apply(vit.Positions(2, 3, 1), params, jnp.zeros((1, 6, 1)))
    np.testing.assert_array_equal(found[0, :, 0], [11, 12, 13, 21, 22, 23])


def test_picture_tokens_are_merged_features_projected_and_placed():
    module = vit.PictureTokens(CONFIG)
    grid, channels = CONFIG.feature_grid, CONFIG.feature_channels
    features = jax.random.normal(jax.random.key(0), (2, grid, grid, channels))
    params = jax.jit(module.init)(jax.random.key(1), features)["params"]
    found = apply(module, params, features)
    assert found.shape == (2, CONFIG.grid**2, CONFIG.width)
    # The last token, by hand: the lower right four features.
    corner = np.asarray(features[1, -2:, -2:]).reshape(-1)
    expected = corner @ params["project"]["kernel"] + params["project"]["bias"]
    expected = expected + params["positions"]["row"][-1] + params["positions"]["column"][-1]
    np.testing.assert_allclose(found[1, -1], expected, atol=TOLERANCE)


def test_line_tokens_equal_a_loop_over_columns(line_params):
    stride, height = CONFIG.line_stride, CONFIG.line_height
    lines = jax.random.uniform(jax.random.key(1), (1, height, CONFIG.line_width)) * 255
    padded = np.pad(
        np.asarray(vit.even_contrast(lines)[0]), ((0, 0), (stride, stride)), mode="edge"
    )
    windows = []
    for column in range(CONFIG.line_columns):
        window = padded[:, column * stride : (column + 3) * stride]
        windows.append(np.concatenate([part.ravel() for part in np.split(window, 3, axis=1)]))
    mlp = layers.Mlp(2 * CONFIG.width, CONFIG.width)
    expected = apply(mlp, line_params["project"], jnp.asarray(np.stack(windows)))
    expected = expected + line_params["positions"]["row"] + line_params["positions"]["column"]
    np.testing.assert_allclose(line_tokens(line_params, lines)[0], expected, atol=TOLERANCE)


def test_a_stroke_reaches_its_own_column_and_the_two_beside_it(line_params):
    ground = jnp.full((1, CONFIG.line_height, CONFIG.line_width), 255.0)
    # A stroke that moves leaves the contrast of the whole line as it was.
    here, there = (ground.at[:, 3, place * CONFIG.line_stride + 1].set(0.0) for place in (5, 10))
    change = line_tokens(line_params, here) - line_tokens(line_params, there)
    changed = np.abs(np.asarray(change))[0].max(-1) > TOLERANCE
    assert np.flatnonzero(changed).tolist() == [4, 5, 6, 9, 10, 11]


def test_a_line_is_brought_to_mean_zero_and_deviation_one_by_hand():
    # Ink 0 on ground 200: mean 150, variance 7500, and the ink, the rarer side, becomes bright.
    found = vit.even_contrast(jnp.array([[[200.0, 200.0], [200.0, 0.0]]]))
    np.testing.assert_allclose(
        found, np.array([[[-50, -50], [-50, 150]]]) / 7501**0.5, atol=TOLERANCE
    )


def test_polarity_and_contrast_of_a_line_vanish():
    lines = jnp.where(jax.random.uniform(jax.random.key(0), (2, 8, 64)) < 0.2, 30.0, 230.0)
    for view in (255.0 - lines, 0.5 * lines + 40.0):
        difference = vit.even_contrast(view) - vit.even_contrast(lines)
        # The variance has 1 added to it, so that a fainter line comes out a little fainter.
        np.testing.assert_allclose(difference, np.zeros(lines.shape), atol=1e-3)


def test_a_blank_line_stays_blank():
    np.testing.assert_array_equal(
        vit.even_contrast(jnp.full((1, 8, 64), 7.0)), np.zeros((1, 8, 64))
    )


def test_an_even_ground_looks_alike_in_the_middle_and_at_the_edge(line_params):
    lines = jnp.full((1, CONFIG.line_height, CONFIG.line_width), 200.0)
    tokens = line_tokens(line_params, lines) - line_params["positions"]["column"][None]
    np.testing.assert_allclose(
        tokens, jnp.broadcast_to(tokens[:, :1], tokens.shape), atol=TOLERANCE
    )


def test_the_encoder_itself_knows_no_order():
    module = vit.Encoder(CONFIG)
    x = jax.random.normal(jax.random.key(0), (1, 5, CONFIG.width))
    params = jax.jit(module.init)(jax.random.key(1), x)["params"]
    order = jnp.array([3, 1, 4, 0, 2])
    found = apply(module, params, x[:, order])
    np.testing.assert_allclose(found, apply(module, params, x)[:, order], atol=TOLERANCE)
