"""Vectors and temperature by hand, and what 600,000 captions take."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import nano
from mmllm.common import config as config_lib
from mmllm.data import pipeline, synthetic
from mmllm.train import optimizer
from mmllm.train import state as state_lib
from mmllm.train import step as step_lib
from mmllm.train.text import prototypes as prototypes_lib
from tests import tiny_run

# The second caption keeps a residual that would turn it.
PARAMS = {
    "project": {"kernel": jnp.eye(2)},
    "residual": jnp.array([[1.6, -1.2], [8.0, 8.0]]),
    "log_scale": jnp.log(jnp.float32(16.0)),
}
TEACHER = jnp.array([[3.0, 4.0], [0.0, 5.0]])


def test_a_vector_is_the_mapped_sentence_plus_half_the_residual_it_keeps():
    vectors = prototypes_lib.apply(PARAMS, TEACHER, jnp.array([1.0, 0.0]))
    # (.6, .8) + (.8, -.6) = (1.4, .2), of length sqrt(2); the second drops its residual.
    expected = [[1.4 / 2**0.5, 0.2 / 2**0.5], [0.0, 1.0]]
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_the_vectors_of_all_captions_keep_every_residual():
    # (0, 1) + (4, 4) = (4, 5), of length sqrt(41)
    expected = [[1.4 / 2**0.5, 0.2 / 2**0.5], [4 / 41**0.5, 5 / 41**0.5]]
    np.testing.assert_allclose(prototypes_lib.vectors(PARAMS, TEACHER), expected, atol=1e-6)


def test_words_are_mapped_without_a_residual():
    words = prototypes_lib.apply(PARAMS, TEACHER, method="words")
    np.testing.assert_allclose(words, [[0.6, 0.8], [0.0, 1.0]], atol=1e-6)


@pytest.mark.parametrize(("scale", "expected"), [(16.0, 16.0), (500.0, prototypes_lib.MAX_SCALE)])
def test_the_scale_is_capped(scale, expected):
    params = {**PARAMS, "log_scale": jnp.log(jnp.float32(scale))}
    assert prototypes_lib.apply(params, method="scale") == pytest.approx(expected, rel=1e-5)


def test_captions_above_the_bound_are_the_map_alone():
    few = {**PARAMS, "residual": PARAMS["residual"][:1]}
    expected = [[1.4 / 2**0.5, 0.2 / 2**0.5], [0.0, 1.0]]
    np.testing.assert_allclose(prototypes_lib.vectors(few, TEACHER), expected, atol=1e-6)
    none = {**PARAMS, "residual": PARAMS["residual"][:0]}
    words = prototypes_lib.apply(PARAMS, TEACHER, method="words")
    np.testing.assert_allclose(prototypes_lib.vectors(none, TEACHER), words, atol=1e-6)


@pytest.mark.parametrize("residuals", [0, 1, 2])
def test_a_sample_of_captions_has_the_vectors_they_have_among_all(residuals):
    params = {**PARAMS, "residual": PARAMS["residual"][:residuals]}
    place = jnp.array([1, 0, -1])  # the last is padding
    sample = prototypes_lib.vectors(params, TEACHER[jnp.array([1, 0, 0])], place)
    every = prototypes_lib.vectors(params, TEACHER)
    np.testing.assert_allclose(sample[:2], every[jnp.array([1, 0])], atol=1e-6)
    words = prototypes_lib.apply(params, TEACHER[:1], method="words")
    np.testing.assert_allclose(sample[2:], words, atol=1e-6)


def with_prototypes(config=tiny_run.CONFIG, **changes):
    return dataclasses.replace(config, prototypes=dataclasses.replace(config.prototypes, **changes))


def test_only_captions_below_the_bound_have_a_residual():
    key = jax.random.key(0)
    few = prototypes_lib.init(with_prototypes(max_residuals=5), 12, key)
    assert few["residual"].shape == (5, 32)
    assert prototypes_lib.init(tiny_run.CONFIG, 12, key)["residual"].shape == (12, 32)


CAPTIONS = 600_000
MB = 1e6


def test_without_residuals_there_is_no_array_of_no_rows():
    none = dataclasses.replace(tiny_run.CONFIG.prototypes, max_residuals=0)
    config = dataclasses.replace(tiny_run.CONFIG, prototypes=none)
    for captions, each in ((12, config), (0, tiny_run.CONFIG)):
        params = prototypes_lib.init(each, captions, jax.random.key(0))
        assert set(params) == {"project", "log_scale"}
        sentences = jnp.asarray(np.random.default_rng(1).standard_normal((captions, 384)))
        alone = prototypes_lib.apply(params, sentences, method="words")
        vectors = prototypes_lib.vectors(params, sentences)
        np.testing.assert_allclose(vectors, alone, atol=1e-6)


def test_600_000_captions_fit_in_memory():
    """The bytes that the module's docstring states."""
    config = with_prototypes(config_lib.resolve(nano.get_config()), negatives=8_192)
    width = prototypes_lib.TEACHER_WIDTH
    assert round(CAPTIONS * width * 2 / MB) == 461  # on the host, mapped
    params = jax.eval_shape(lambda key: prototypes_lib.init(config, CAPTIONS, key), KEY)
    assert round(3 * params["residual"].size * 4 / MB) == 50
    asked = config.batch
    labels = asked.pictures + asked.names + asked.spoken + asked.texts
    rows = config.prototypes.negatives + labels
    vectors = jax.eval_shape(
        prototypes_lib.vectors,
        params,
        jax.ShapeDtypeStruct((rows, width), jnp.float32),
        jax.ShapeDtypeStruct((rows,), jnp.int32),
    )
    assert rows == 8_550
    assert round(rows * width * 4 / MB) == 13
    assert round(vectors.size * 4 / MB) == 9
    held = prototypes_lib.on_device(config, np.zeros((3, width), np.float16))
    assert held.shape == (0, width)


KEY = jax.random.key(0)


def many(config, captions, sentences):
    """The arrays of smoke runs, among that many captions."""
    arrays = synthetic.training_arrays(config)
    texts = dataclasses.replace(arrays.texts, prototype_sentences=sentences)
    assert len(sentences) == captions
    return dataclasses.replace(arrays, texts=texts)


@pytest.mark.slow
def test_a_step_among_600_000_captions_runs_on_those_of_its_batch(tmp_path):
    config = with_prototypes(max_residuals=1_000, negatives=64)
    path = tmp_path / "sentences.npy"
    shape = (CAPTIONS, prototypes_lib.TEACHER_WIDTH)
    # A sparse file, but for a few rows: mapped as a real one is.
    sentences = np.lib.format.open_memmap(path, "w+", np.float16, shape)
    sentences[:: CAPTIONS // 50] = 0.05
    tx = optimizer.make(config.train)
    state = state_lib.fresh(state_lib.init_params(config, CAPTIONS), tx)
    assert state.params["prototypes"]["residual"].shape == (1_000, config.model.embed_dim)
    batch = next(pipeline.batches(config, many(config, CAPTIONS, sentences)))
    held = prototypes_lib.on_device(config, sentences)
    largest = max(value.size for value in jax.tree.leaves(batch))
    assert largest < CAPTIONS
    step = jax.jit(step_lib.make_step(config, tx))
    moved, metrics = step(state, batch, held)
    assert int(moved.step) == 1
    assert np.isfinite(metrics["loss/total"])
    inside = str(jax.make_jaxpr(step)(state, batch, held))
    assert str(CAPTIONS) not in inside  # no array of the step has a row for each caption


@pytest.mark.slow
def test_a_sample_of_all_captions_gives_the_loss_of_all():
    # Without dropped residuals the order of the captions changes nothing but the order of sums.
    config = dataclasses.replace(
        tiny_run.CONFIG,
        loss=dataclasses.replace(tiny_run.CONFIG.loss, residual_keep=1.0),
    )
    arrays = synthetic.training_arrays(config)
    sampled = with_prototypes(config, negatives=400)  # so all twelve are drawn
    losses = []
    for each in (config, sampled):
        batch = next(pipeline.batches(each, arrays))
        held = prototypes_lib.on_device(each, arrays.texts.prototype_sentences)
        step = step_lib.make_step(each, optimizer.make(each.train))
        losses.append(jax.jit(step)(tiny_run.fresh_state(each), batch, held)[1])
    assert losses[0].keys() == losses[1].keys()
    for name, value in losses[0].items():
        assert float(losses[1][name]) == pytest.approx(float(value), rel=1e-4), name
