"""The prototypes's vectors and temperature by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.train import prototypes as prototypes_lib

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
