"""The decoder alone: what is masked, how a cache grows, and one step against the whole sequence."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tiny
from mmllm.common import config as config_lib
from mmllm.models import attention, decoder

CONFIG = config_lib.resolve(tiny.get_config()).model
PREFIX, TEXT = 3, 4
TOLERANCE = 2e-5  # float32, two orders of summation
MODULE = decoder.Decoder(CONFIG)


@pytest.fixture(scope="module")
def sequence():
    x = jax.random.normal(jax.random.key(0), (1, PREFIX + TEXT, CONFIG.width))
    return x[:, :PREFIX], x[:, PREFIX:]


@pytest.fixture(scope="module")
def params(sequence):
    return jax.jit(MODULE.init)(jax.random.key(1), *sequence)["params"]


@functools.partial(jax.jit, static_argnames="method")
def apply(params, *arguments, method=None) -> Any:
    return MODULE.apply({"params": params}, *arguments, method=method)


def grow(cache, length) -> Any:
    return MODULE.apply({}, cache, length, method="grow")


def empty_cache(rows, length):
    shape = (rows, CONFIG.kv_heads, length, CONFIG.head_dim)
    pair = attention.KeyValue(jnp.ones(shape), jnp.ones(shape))
    return (pair,) * CONFIG.decoder_blocks


def test_hidden_states_are_those_of_the_text_alone(params, sequence):
    hidden, cache = apply(params, *sequence)
    assert hidden.shape == (1, TEXT, CONFIG.width)
    assert len(cache) == CONFIG.decoder_blocks
    assert cache[0].key.shape == (1, CONFIG.kv_heads, PREFIX + TEXT, CONFIG.head_dim)


def test_texts_that_share_a_row_are_decoded_as_if_alone(params, sequence):
    # Padding is such a text too: a token whose start is its own column.
    prefix, text = sequence
    packed, _ = apply(params, prefix, text, jnp.array([[0, 0, 2, 3]]))
    for start, stop in ((0, 2), (2, 3), (3, 4)):
        alone, _ = apply(params, prefix, text[:, start:stop])
        np.testing.assert_allclose(packed[:, start:stop], alone, atol=TOLERANCE)
    whole, _ = apply(params, prefix, text)
    one, _ = apply(params, prefix, text, jnp.zeros((1, TEXT), jnp.int32))
    np.testing.assert_array_equal(whole, one)


def test_a_changed_token_leaves_the_earlier_ones_bit_for_bit(params, sequence):
    prefix, text = sequence
    before, _ = apply(params, prefix, text)
    after, _ = apply(params, prefix, text.at[:, 2].multiply(-2.0))
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert (np.abs(np.asarray(before - after))[0, 2:].max(-1) > 0).all()


def test_the_order_of_earlier_tokens_reaches_the_last_one(params, sequence):
    prefix, text = sequence
    before, _ = apply(params, prefix, text)
    after, _ = apply(params, prefix, text[:, jnp.array([1, 0, 2, 3])])
    assert np.abs(np.asarray(before - after))[0, -1].max() > 1e-4


def test_a_grown_cache_keeps_its_rows_and_adds_zeros():
    (grown,) = grow(empty_cache(1, PREFIX + 2), 2)
    assert grown.key.shape[2] == PREFIX + CONFIG.max_text
    assert (grown.key[:, :, : PREFIX + 2] == 1).all()
    assert (grown.value[:, :, PREFIX + 2 :] == 0).all()


def test_a_full_cache_grows_by_nothing_and_a_longer_text_is_refused():
    (grown,) = grow(empty_cache(1, CONFIG.max_text), CONFIG.max_text)
    assert grown.key.shape[2] == CONFIG.max_text
    with pytest.raises(ValueError, match="at most max_text = 40 tokens, got 41"):
        grow(empty_cache(1, 41), 41)


def test_a_step_equals_the_last_row_of_the_whole_sequence(params, sequence):
    prefix, text = sequence
    expected, _ = apply(params, prefix, text)
    _, cache = apply(params, prefix, text[:, :-1])
    cache = grow(cache, TEXT - 1)
    position = jnp.array([PREFIX + TEXT - 1])
    found, _ = apply(params, text[:, -1:], position, cache, method="step")
    np.testing.assert_allclose(found[:, 0], expected[:, -1], atol=TOLERANCE)


def test_a_step_writes_one_row_of_the_cache_and_reads_none_after_it(params, sequence):
    text = sequence[1][:, :1]
    cache = empty_cache(1, PREFIX + TEXT)
    hidden, (written,) = apply(params, text, jnp.array([4]), cache, method="step")
    changed = np.asarray(written.key != cache[0].key).any(axis=(0, 1, 3))
    assert np.flatnonzero(changed).tolist() == [4]
    noisy = tuple(
        attention.KeyValue(pair.key.at[:, :, 5:].set(9.0), pair.value.at[:, :, 5:].set(9.0))
        for pair in cache
    )
    again, _ = apply(params, text, jnp.array([4]), noisy, method="step")
    np.testing.assert_array_equal(hidden, again)
