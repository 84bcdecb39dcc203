"""A prototypes fitted to a finished model points where its pictures and its texts point."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.data import synthetic
from mmllm.models import mmllm as model_lib
from mmllm.train import state as state_lib
from mmllm.train.phases import fit_prototypes
from mmllm.train.text import prototypes as prototypes_lib
from tests import tiny_run

CONFIG = tiny_run.CONFIG


def ruled(steps: int):
    return dataclasses.replace(CONFIG, regain=dataclasses.replace(CONFIG.regain, steps=steps))


@pytest.fixture(scope="module")
def arrays():
    return synthetic.training_arrays(CONFIG)


@pytest.fixture(scope="module")
def params():
    return jax.device_get(state_lib.init_params(CONFIG, synthetic.CAPTIONS)["model"])


@pytest.mark.slow
def test_pictures_find_their_captions_in_the_fitted_bank(params, arrays):
    before = jax.tree.map(np.array, params)
    said: list[str] = []
    fitted = fit_prototypes.fit_prototypes(ruled(100), params, arrays, said.append)
    jax.tree.map(np.testing.assert_array_equal, before, params)
    teacher = jnp.float32(arrays.texts.prototype_sentences)
    vectors = np.asarray(prototypes_lib.vectors(fitted, teacher))
    seen = model_lib.build(CONFIG.model).apply(
        {"params": params},
        jnp.float32(arrays.captioned["emoji"].features[0]),
        train=False,
        method="embed_features",
    )
    found = np.argmax(np.asarray(seen) @ vectors.T, axis=1)
    assert np.mean(found == arrays.captioned["emoji"].label) > 0.8
    assert said[-1].startswith("prototypes: step 100/100  ")
    assert "  retrieval " in said[-1]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_named(params, arrays):
    broken = {
        **params,
        "feature_affine": jax.tree.map(lambda x: x * np.nan, params["feature_affine"]),
    }
    with pytest.raises(FloatingPointError, match="prototypes step 1: .*loss/total.* is not finite"):
        fit_prototypes.fit_prototypes(ruled(1), broken, arrays)
