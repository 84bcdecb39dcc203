"""What a step computes before any loss, against the model run by hand on one text at a time."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.data import pipeline, synthetic
from mmllm.models import mmllm as model_lib
from mmllm.train import forward, losses
from mmllm.train import state as state_lib
from mmllm.train.text import prototypes as prototypes_lib
from tests import tiny_run

# float32 sums in another order
TOLERANCE = 1e-4
CONFIG = tiny_run.CONFIG
# Nothing drawn at random: what is left can be computed a second time.
STILL = dataclasses.replace(
    CONFIG,
    model=dataclasses.replace(CONFIG.model, feature_dropout=0.0),
    loss=dataclasses.replace(CONFIG.loss, spoken_noise=0.0),
)
MODEL = model_lib.build(STILL.model)
ASKING = 8  # stands for <ans> in the synthetic questions


@pytest.fixture(scope="module")
def params():
    return state_lib.init_params(CONFIG, synthetic.CAPTIONS)


@pytest.fixture(scope="module")
def arrays():
    return synthetic.training_arrays(CONFIG)


@pytest.fixture(scope="module")
def batch(arrays):
    return jax.tree.map(jnp.asarray, next(pipeline.batches(CONFIG, arrays)))


@pytest.fixture(scope="module")
def prototype_sentences(arrays):
    return jnp.asarray(arrays.texts.prototype_sentences, jnp.float32)


@pytest.fixture(scope="module")
def noisy(params, batch, prototype_sentences):
    """Runs the configuration as it is, with dropout and noise, by key."""
    model = model_lib.build(CONFIG.model)
    return jax.jit(lambda key: forward.run(CONFIG, model, params, batch, prototype_sentences, key))


@pytest.fixture(scope="module")
def outputs(params, batch, prototype_sentences):
    key = jax.random.key(0)
    run = jax.jit(lambda params: forward.run(STILL, MODEL, params, batch, prototype_sentences, key))
    return run(params)


@pytest.fixture(scope="module")
def alone(params):
    """Runs one method of the model, without the training step around it."""
    methods: dict[str, Any] = {}

    def run(method, *arguments) -> Any:
        if method not in methods:
            methods[method] = jax.jit(
                lambda *inputs: MODEL.apply({"params": params["model"]}, *inputs, method=method)
            )
        return methods[method](*arguments)

    return run


def naive_loss(alone, prefix, ids, start, asking: int | None = None) -> float:
    """Mean loss of the next tokens of each packed text, one text at a time.

    With `asking` only of those from that token on.
    """
    terms = []
    for row, (tokens, starts) in enumerate(zip(np.asarray(ids), np.asarray(start), strict=True)):
        for column in np.unique(starts[tokens != 0]):
            text = tokens[(starts == column) & (tokens != 0)]
            hidden = alone("decode_hidden", prefix[row][None], jnp.asarray(text)[None])
            logits = np.asarray(alone("logits", hidden), np.float64)[0]
            first = 0 if asking is None else text.tolist().index(asking)
            for place in range(first, len(text) - 1):
                scores = logits[place]
                terms.append(np.log(np.exp(scores).sum()) - scores[text[place + 1]])
    return float(np.mean(terms))


def test_captions_and_answers_are_decoded_behind_their_picture(outputs, alone, batch):
    prefix, _ = alone("encode_features", batch["features"].astype(jnp.float32))
    parts, captions = losses.token_losses(STILL, outputs, batch), STILL.batch.captions
    for name, rows, asking in (
        ("caption", slice(0, captions), None),
        ("vqa", slice(captions, None), ASKING),
    ):
        texts = batch["ids"][rows], batch["start"][rows]
        expected = naive_loss(alone, prefix[rows], *texts, asking)
        assert parts[name] == pytest.approx(expected, rel=TOLERANCE), name


def test_names_are_said_from_the_embedding_alone(outputs, alone, batch):
    seen = alone("embed_features", batch["name_features"].astype(jnp.float32))
    prefix = alone("name_prefix", seen)
    expected = naive_loss(alone, prefix, batch["name_ids"], batch["name_start"])
    result = losses.token_losses(STILL, outputs, batch)["name"]
    assert result == pytest.approx(expected, rel=TOLERANCE)


def test_names_without_a_picture_are_said_from_their_bank_vectors(
    outputs, alone, params, batch, prototype_sentences
):
    vectors = prototypes_lib.vectors(params["prototypes"], prototype_sentences)[
        batch["spoken_label"]
    ]
    prefix = alone("name_prefix", vectors)
    expected = naive_loss(alone, prefix, batch["spoken_ids"], batch["spoken_start"])
    result = losses.token_losses(STILL, outputs, batch)["spoken"]
    assert result == pytest.approx(expected, rel=TOLERANCE)


def test_embeddings_of_all_pictures_texts_and_lines_come_along(outputs, alone, batch):
    features = jnp.concatenate([batch["features"], batch["name_features"]]).astype(jnp.float32)
    for name, expected in (
        ("embedding", alone("embed_features", features)),
        ("texts", alone("embed_text", batch["texts"])),
        ("lines", alone("read_lines", batch["lines"].astype(jnp.float32))),
    ):
        np.testing.assert_allclose(outputs[name], expected, atol=TOLERANCE, err_msg=name)


@pytest.mark.slow
def test_dropout_and_noise_follow_the_key_and_touch_neither_texts_nor_lines(noisy):
    one, again, other = (noisy(jax.random.key(seed)) for seed in (0, 0, 1))
    for name in one:
        np.testing.assert_array_equal(one[name], again[name], err_msg=name)
        drawn = name not in ("texts", "lines")
        assert np.any(one[name] != other[name]) == drawn, name


@pytest.fixture(scope="module")
def gradients(params, batch, prototype_sentences):
    """Of the losses of names with and without a picture."""

    def loss(params, name):
        arguments = CONFIG, MODEL, params, batch, prototype_sentences, jax.random.key(0)
        return losses.token_losses(CONFIG, forward.run(*arguments), batch)[name]

    names = ("name", "spoken")
    return jax.jit(lambda p: {name: jax.grad(loss)(p, name) for name in names})(params)


def moves(tree) -> bool:
    return any(np.any(leaf) for leaf in jax.tree.leaves(tree))


def test_a_name_teaches_the_embedding_and_the_decoder_and_not_the_encoder(gradients):
    model = gradients["name"]["model"]
    assert moves(model["image_embedding"])
    assert moves(model["decoder"])
    assert not moves(model["encoder"])


def test_a_spoken_name_teaches_neither_the_bank_nor_a_picture_s_path(gradients):
    model = gradients["spoken"]["model"]
    assert moves(model["decoder"])
    assert not moves(gradients["spoken"]["prototypes"])
    assert not moves(model["image_embedding"])


def test_without_names_in_the_mixture_nothing_is_said_of_them(params, arrays, prototype_sentences):
    config = dataclasses.replace(CONFIG, batch=dataclasses.replace(CONFIG.batch, names=0, spoken=0))
    batch = jax.tree.map(jnp.asarray, next(pipeline.batches(config, arrays)))
    key = jax.random.key(0)
    outputs = jax.eval_shape(
        lambda params: forward.run(config, MODEL, params, batch, prototype_sentences, key), params
    )
    assert set(outputs) == {"logits", "embedding", "texts", "lines"}
    assert len(outputs["embedding"]) == len(batch["label"])
