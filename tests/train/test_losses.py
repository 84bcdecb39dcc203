"""Losses against numbers worked by hand and naive second versions."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.common.config import Config
from mmllm.data import pipeline, synthetic
from mmllm.models import mmllm as model_lib
from mmllm.train import losses
from mmllm.train import state as state_lib
from tests import tiny_run

# float32 sums in another order
TOLERANCE = 1e-4
CONFIG = dataclasses.replace(
    tiny_run.CONFIG,
    mix=dataclasses.replace(tiny_run.CONFIG.mix, lines=2),
)
MODEL = model_lib.build(CONFIG.model)


@pytest.fixture(scope="module")
def params():
    return state_lib.init_state(CONFIG, synthetic.BANK).params


@pytest.fixture(scope="module")
def arrays():
    return synthetic.training_arrays(CONFIG)


@pytest.fixture(scope="module")
def batch(arrays):
    return jax.tree.map(jnp.asarray, next(pipeline.batches(CONFIG, arrays)))


@pytest.fixture(scope="module")
def bank_teacher(arrays):
    return jnp.asarray(arrays.texts.bank_teacher, jnp.float32)


def unit(rows) -> jax.Array:
    rows = jnp.asarray(rows, jnp.float32)
    return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)


def test_a_mean_counts_what_has_weight_and_is_zero_without_any():
    loss = jnp.array([1.0, 2.0, 6.0])
    assert losses._mean(loss, jnp.array([1.0, 0.0, 1.0])) == 3.5
    assert losses._mean(loss, jnp.zeros(3)) == 0.0


def test_a_bank_vector_is_the_mapped_sentence_plus_half_the_residual_it_keeps():
    bank = losses.CaptionBank(captions=2, embed_dim=2)
    params = {
        "project": {"kernel": jnp.eye(2)},
        "residual": jnp.array([[1.6, -1.2], [8.0, 8.0]]),
        "log_scale": jnp.log(jnp.float32(16.0)),
    }
    teacher = jnp.array([[3.0, 4.0], [0.0, 5.0]])
    vectors: Any = bank.apply({"params": params}, teacher, jnp.array([1.0, 0.0]))
    # (.6, .8) + (.8, -.6) = (1.4, .2), of length sqrt(2); the second drops its residual.
    expected = [[1.4 / 2**0.5, 0.2 / 2**0.5], [0.0, 1.0]]
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


@pytest.mark.parametrize(("scale", "expected"), [(16.0, 16.0), (500.0, losses.MAX_SCALE)])
def test_the_scale_is_capped(scale, expected):
    bank = losses.CaptionBank(captions=1, embed_dim=2)
    params = {"log_scale": jnp.log(jnp.float32(scale)), "residual": jnp.zeros((1, 2))}
    assert bank.apply({"params": params}, method="scale") == pytest.approx(expected, rel=1e-5)


def test_a_fresh_bank_starts_at_the_initial_scale(params):
    assert jnp.exp(params["bank"]["log_scale"]) == pytest.approx(losses.INITIAL_SCALE, rel=1e-5)


def naive_decoder_loss(params, prefix, ids, start, asking: int | None = None) -> float:
    """Mean loss of the next tokens of each packed text, one text at a time.

    With `asking` only of those from that token on.
    """
    terms = []
    for row, (tokens, starts) in enumerate(zip(ids, start, strict=True)):
        for column in np.unique(starts[tokens != 0]):
            text = tokens[(starts == column) & (tokens != 0)]
            hidden = MODEL.apply(
                {"params": params},
                prefix[row][None],
                jnp.asarray(text)[None],
                method="decode_hidden",
            )
            logits = np.asarray(MODEL.apply({"params": params}, hidden, method="logits"))[0]
            first = 0 if asking is None else text.tolist().index(asking)
            for place in range(first, len(text) - 1):
                scores = logits[place].astype(np.float64)
                terms.append(np.log(np.exp(scores).sum()) - scores[text[place + 1]])
    return float(np.mean(terms))


def test_caption_and_answer_losses_equal_a_naive_loop(params, batch):
    model_params = params["model"]
    prefix = jax.random.normal(
        jax.random.key(1), (len(batch["ids"]), CONFIG.model.prefix_length, CONFIG.model.width)
    )
    result = losses.decoder_losses(CONFIG, MODEL, model_params, prefix, batch)
    captions = CONFIG.mix.captioned
    ids, start = np.asarray(batch["ids"]), np.asarray(batch["start"])
    for name, rows, asking in (
        ("caption", slice(0, captions), None),
        ("vqa", slice(captions, None), 8),  # stands for <ans> there
    ):
        expected = naive_decoder_loss(model_params, prefix[rows], ids[rows], start[rows], asking)
        assert result[name] == pytest.approx(expected, rel=TOLERANCE), name


def naive_ctc(logits: np.ndarray, ids: list[int]) -> float:
    """-log P(ids) by the forward recursion over blanks and characters, in float64."""
    scores = np.exp(logits.astype(np.float64))
    chance = scores / scores.sum(axis=1, keepdims=True)
    path = [0]
    for character in ids:
        path += [character, 0]
    alpha = np.zeros(len(path))
    alpha[0], alpha[1] = chance[0, path[0]], chance[0, path[1]]
    for column in chance[1:]:
        before = alpha.copy()
        for place, character in enumerate(path):
            total = before[place] + (before[place - 1] if place else 0.0)
            if place > 1 and character not in (0, path[place - 2]):
                total += before[place - 2]
            alpha[place] = total * column[character]
    return -float(np.log(alpha[-1] + alpha[-2]))


def test_the_line_loss_is_ctc_per_character_averaged_over_lines(params):
    rng = np.random.default_rng(0)
    lines = rng.integers(0, 256, (2, CONFIG.model.line_height, CONFIG.model.line_width))
    ids = np.zeros((2, CONFIG.data.line_chars), np.int32)
    ids[0, :3], ids[1, :1] = (7, 7, 9), (4,)
    batch = {"lines": jnp.asarray(lines, jnp.uint8), "line_ids": jnp.asarray(ids)}
    read = jax.jit(lambda *inputs: MODEL.apply(*inputs, method="read_lines"))
    logits = np.asarray(read({"params": params["model"]}, jnp.asarray(lines, jnp.float32)))
    expected = (naive_ctc(logits[0], [7, 7, 9]) / 3 + naive_ctc(logits[1], [4])) / 2
    result = jax.jit(lambda *inputs: losses.line_loss(MODEL, *inputs))(params["model"], batch)
    assert result == pytest.approx(expected, rel=TOLERANCE)


def retrieval(params, batch, bank_teacher, embedding, config: Config = CONFIG):
    run = jax.jit(lambda *inputs: losses.retrieval_losses(config, MODEL, *inputs))
    return run(params, embedding, batch["label"], batch, bank_teacher, jax.random.key(0))


def test_retrieval_is_a_softmax_over_the_whole_bank_of_the_pictures_that_have_a_name(
    params, batch, bank_teacher
):
    config = dataclasses.replace(CONFIG, loss=dataclasses.replace(CONFIG.loss, residual_keep=1.0))
    embedding = unit(np.random.default_rng(0).standard_normal((len(batch["label"]), 32)))
    result = retrieval(params, batch, bank_teacher, embedding, config)["retrieval"]
    kernel, residual = params["bank"]["project"]["kernel"], params["bank"]["residual"]
    vectors = unit(unit(bank_teacher @ kernel) + 0.5 * residual)
    scores = np.asarray(losses.INITIAL_SCALE * embedding @ vectors.T, np.float64)
    label = np.asarray(batch["label"])
    named = np.nonzero(label >= 0)[0]
    terms = [np.log(np.exp(scores[i]).sum()) - scores[i, label[i]] for i in named]
    assert 0 < len(named) < len(label)
    assert result == pytest.approx(np.mean(terms), rel=TOLERANCE)


def test_without_a_named_picture_retrieval_costs_nothing(params, batch, bank_teacher):
    nameless = {**batch, "label": jnp.full_like(batch["label"], pipeline.NO_LABEL)}
    embedding = unit(np.ones((len(batch["label"]), 32)))
    assert retrieval(params, nameless, bank_teacher, embedding)["retrieval"] == 0.0


def test_the_text_losses_move_the_tower_and_never_the_bank(params, batch, bank_teacher):
    embedding = unit(np.ones((len(batch["label"]), 32)))

    def text_loss(params):
        parts = retrieval(params, batch, bank_teacher, embedding)
        return parts["text_caption"] + parts["text_teacher"]

    grads = jax.jit(jax.grad(text_loss))(params)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads["bank"]))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(grads["model"]["text_tower"]))


def test_the_picture_loss_moves_map_residual_and_scale_of_the_bank(params, batch, bank_teacher):
    embedding = unit(np.random.default_rng(0).standard_normal((len(batch["label"]), 32)))
    grads = jax.jit(
        jax.grad(lambda params: retrieval(params, batch, bank_teacher, embedding)["retrieval"])
    )(params)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(grads["bank"]))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads["model"]))


def test_names_are_classified_and_said_from_the_embedding_alone(params, batch, bank_teacher):
    def name_loss(params):
        held = {**batch, "cells": jnp.zeros_like(batch["cells"])}
        return losses.total_loss(CONFIG, MODEL, params, held, bank_teacher, jax.random.key(0))[1][
            "name"
        ]

    grads = jax.jit(jax.grad(name_loss))(params)["model"]
    assert any(np.any(leaf) for leaf in jax.tree.leaves(grads["image_embedding"]["short"]))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(grads["decoder"]))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads["encoder"]))


def test_the_name_loss_equals_a_naive_loop(params, batch):
    ids, start = np.asarray(batch["name_ids"]), np.asarray(batch["name_start"])
    prefix = jax.random.normal(jax.random.key(1), (len(ids), 1, CONFIG.model.width))
    terms = losses.next_token(MODEL, params["model"], prefix, batch, "name_")
    result = losses._mean(terms, batch["name_target_weight"])
    expected = naive_decoder_loss(params["model"], prefix, ids, start)
    assert result == pytest.approx(expected, rel=TOLERANCE)


def test_names_are_spoken_from_their_bank_vectors(params, batch, bank_teacher):
    config = dataclasses.replace(CONFIG, loss=dataclasses.replace(CONFIG.loss, spoken_noise=0.0))
    arguments = MODEL, params, batch, bank_teacher, jax.random.key(0)
    vectors = losses.bank_vectors(params["bank"], bank_teacher)[batch["spoken_label"]]
    prefix = MODEL.apply({"params": params["model"]}, vectors, method="name_prefix")
    ids, start = np.asarray(batch["spoken_ids"]), np.asarray(batch["spoken_start"])
    expected = naive_decoder_loss(params["model"], prefix, ids, start)
    assert losses.spoken_loss(config, *arguments) == pytest.approx(expected, rel=TOLERANCE)
    # Noise changes it, and neither the bank nor a picture's path learns from it.
    assert losses.spoken_loss(CONFIG, *arguments) != losses.spoken_loss(config, *arguments)
    grads = jax.grad(lambda params: losses.spoken_loss(CONFIG, MODEL, params, *arguments[2:]))(
        params
    )
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads["bank"]))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(grads["model"]["decoder"]))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads["model"]["image_embedding"]))


def test_without_names_there_is_no_name_loss(params, arrays, bank_teacher):
    config = dataclasses.replace(CONFIG, mix=dataclasses.replace(CONFIG.mix, names=0, spoken=0))
    batch = jax.tree.map(jnp.asarray, next(pipeline.batches(config, arrays)))
    total, parts = losses.total_loss(config, MODEL, params, batch, bank_teacher, jax.random.key(0))
    assert not {"name", "spoken"} & set(parts)
    assert np.isfinite(total)


def test_a_step_without_lines_has_a_line_loss_of_zero(params):
    model = CONFIG.model
    lines = jnp.zeros((0, model.line_height, model.line_width), jnp.uint8)
    batch = {"lines": lines, "line_ids": jnp.zeros((0, CONFIG.data.line_chars), jnp.int32)}
    assert losses.line_loss(MODEL, params["model"], batch) == 0.0
