"""Layers taken out of the model: each once, in their order, and the same function by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm import models
from mmllm.parity import taps
from tests import tiny_bundle

CONFIG = tiny_bundle.CONFIG
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def params():
    return models.init_params(CONFIG, jax.random.key(0))


@pytest.fixture(scope="module")
def recorded(params):
    ids = jnp.array([[5, 60, 7, 0]], jnp.int32)

    def call(model):
        prefix = model.encode_image(jnp.linspace(0, 255, 32 * 32 * 3).reshape(1, 32, 32, 3))
        _, cache = model.prefill(prefix, ids)
        position = jnp.array([CONFIG.prefix_length + 3], jnp.int32)
        model.decode_step(jnp.array([7], jnp.int32), position, cache)

    return taps.record(CONFIG, params, call)


def test_layers_are_recorded_once_each_in_the_order_of_their_calls(recorded):
    assert [layer.name for layer in recorded] == [
        "feature_affine",
        "picture_tokens",
        "encoder/block_0",
        "encoder/norm",
        "image_embedding",
        "embedding_token",
        "embed",
        "decoder/block_0",
        "decoder/block_1",
        "decoder/norm",
        "embed.logits",
        "decoder/block_0.step",
        "decoder/block_1.step",
    ]


def test_a_layer_by_itself_gives_what_it_gave_in_the_model(recorded, params):
    for layer in recorded:
        alone = taps.signature(layer, params)
        assert list(alone.inputs) == [f"input_{i}" for i in range(len(layer.inputs))]
        found = alone.function(
            **dict(zip(alone.inputs, map(jnp.asarray, layer.inputs), strict=True))
        )
        assert len(found) == len(layer.outputs)
        for i, target in enumerate(layer.outputs):
            np.testing.assert_allclose(found[f"output_{i}"], target, rtol=1e-5, atol=1e-5)


def test_signature_names_are_plain(recorded, params):
    assert "decoder__block_0__step" in taps.signatures(recorded, params)
