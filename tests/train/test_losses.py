"""Losses against numbers worked by hand and naive second versions."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.data import pipeline, synthetic
from mmllm.train import losses
from mmllm.train.text import prototypes as prototypes_lib
from tests import tiny_run

# float32 sums in another order
TOLERANCE = 1e-4
CONFIG = tiny_run.CONFIG
WIDTH = CONFIG.model.embed_dim


def unit(rows) -> jax.Array:
    rows = jnp.asarray(rows, jnp.float32)
    return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)


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
def prototype_params(prototype_sentences):
    captions = prototypes_lib.TextPrototypes(synthetic.CAPTIONS, WIDTH)
    keep = jnp.ones(synthetic.CAPTIONS)
    return captions.init(jax.random.key(0), prototype_sentences, keep, method="touch")["params"]


@pytest.fixture(scope="module")
def outputs(batch):
    """Unit embeddings of pictures, those of names last, and of texts."""
    rng = np.random.default_rng(0)
    pictures = len(batch["label"]) + len(batch["name_label"])
    return {
        "embedding": unit(rng.standard_normal((pictures, WIDTH))),
        "texts": unit(rng.standard_normal((len(batch["texts"]), WIDTH))),
    }


def test_a_mean_counts_what_has_weight_and_is_zero_without_any():
    loss = jnp.array([1.0, 2.0, 6.0])
    assert losses.mean(loss, jnp.array([1.0, 0.0, 1.0])) == 3.5
    assert losses.mean(loss, jnp.zeros(3)) == 0.0


def test_token_losses_part_captions_from_answers_and_skip_what_has_no_weight():
    captioned = CONFIG.batch.captions
    even, sure = [0.0, 0.0, 0.0, 0.0], [math.log(3.0), -1e9, 0.0, -1e9]  # chances 3/4 and 1/4
    outputs = {"logits": jnp.array([even, sure, sure, sure])}
    batch = {
        "target": jnp.array([2, 0, 2, 1]),
        "target_weight": jnp.array([1.0, 1.0, 1.0, 0.0]),
        "target_row": jnp.array([0, captioned - 1, captioned, 0]),
    }
    parts = losses.token_losses(CONFIG, outputs, batch)
    assert set(parts) == {"caption", "vqa"}
    assert parts["caption"] == pytest.approx((math.log(4) + math.log(4 / 3)) / 2, rel=1e-6)
    assert parts["vqa"] == pytest.approx(math.log(4), rel=1e-6)


def test_names_and_spoken_names_have_losses_of_their_own():
    none = jnp.zeros(1, jnp.int32)
    batch = {"target": none, "target_weight": jnp.zeros(1), "target_row": none}
    outputs = {"logits": jnp.zeros((1, 4))}
    for kind, size in (("name_", 8), ("spoken_", 16)):
        outputs[f"{kind}logits"] = jnp.zeros((1, size))
        batch |= {f"{kind}target": none, f"{kind}target_weight": jnp.ones(1)}
    parts = losses.token_losses(CONFIG, outputs, batch)
    assert parts["name"] == pytest.approx(math.log(8), rel=1e-6)
    assert parts["spoken"] == pytest.approx(math.log(16), rel=1e-6)
    assert parts["caption"] == parts["vqa"] == 0.0


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


def test_the_line_loss_is_ctc_per_character_averaged_over_lines():
    logits = np.random.default_rng(0).standard_normal((2, 16, 12)).astype(np.float32)
    ids = np.zeros((2, CONFIG.data.line_chars), np.int32)
    ids[0, :3], ids[1, :1] = (7, 7, 9), (4,)
    expected = (naive_ctc(logits[0], [7, 7, 9]) / 3 + naive_ctc(logits[1], [4])) / 2
    result = jax.jit(losses.line_loss)(jnp.asarray(logits), {"line_ids": jnp.asarray(ids)})
    assert result == pytest.approx(expected, rel=TOLERANCE)


def test_a_step_without_lines_has_a_line_loss_of_zero():
    batch = {"line_ids": jnp.zeros((0, CONFIG.data.line_chars), jnp.int32)}
    assert losses.line_loss(jnp.zeros((0, 16, 12)), batch) == 0.0


def test_retrieval_is_a_softmax_over_the_whole_bank_of_the_pictures_that_have_a_name(
    prototype_params, outputs, batch, prototype_sentences
):
    config = dataclasses.replace(CONFIG, loss=dataclasses.replace(CONFIG.loss, residual_keep=1.0))
    key = jax.random.key(0)
    parts = losses.retrieval_losses(
        config, prototype_params, outputs, batch, prototype_sentences, key
    )
    kernel, residual = prototype_params["project"]["kernel"], prototype_params["residual"]
    vectors = unit(unit(prototype_sentences @ kernel) + 0.5 * residual)
    scores = np.asarray(prototypes_lib.INITIAL_SCALE * outputs["embedding"] @ vectors.T, np.float64)
    label = np.concatenate([batch["label"], batch["name_label"]])
    named = np.nonzero(label >= 0)[0]
    terms = [np.log(np.exp(scores[i]).sum()) - scores[i, label[i]] for i in named]
    assert 0 < len(named) < len(label)
    assert parts["retrieval"] == pytest.approx(np.mean(terms), rel=TOLERANCE)


def test_without_a_named_picture_retrieval_costs_nothing(
    prototype_params, outputs, batch, prototype_sentences
):
    labels = ("label", "name_label")
    nameless = batch | {name: jnp.full_like(batch[name], pipeline.NO_LABEL) for name in labels}
    key = jax.random.key(0)
    parts = losses.retrieval_losses(
        CONFIG, prototype_params, outputs, nameless, prototype_sentences, key
    )
    assert parts["retrieval"] == 0.0


@pytest.fixture(scope="module")
def gradients(prototype_params, outputs, batch, prototype_sentences):
    """Of the picture loss and of both text losses, by the prototypes and by the embeddings."""

    def loss(names, params, outputs):
        arguments = CONFIG, params, outputs, batch, prototype_sentences, jax.random.key(0)
        parts = losses.retrieval_losses(*arguments)
        return sum(parts[name] for name in names)

    def both(params, outputs):
        kinds = {"picture": ("retrieval",), "text": ("text_caption", "text_teacher")}
        return {
            kind: jax.grad(lambda p, o, n=names: loss(n, p, o), (0, 1))(params, outputs)
            for kind, names in kinds.items()
        }

    return jax.device_get(jax.jit(both)(prototype_params, outputs))


def test_the_text_losses_move_the_tower_and_never_the_bank(gradients):
    by_prototypes, by_outputs = gradients["text"]
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(by_prototypes))
    assert np.any(by_outputs["texts"], axis=1).all()
    assert not np.any(by_outputs["embedding"])


def test_the_picture_loss_moves_map_residual_and_scale_of_the_bank(gradients):
    by_prototypes, by_outputs = gradients["picture"]
    assert all(np.any(leaf) for leaf in jax.tree.leaves(by_prototypes))
    assert np.any(by_outputs["embedding"])
    assert not np.any(by_outputs["texts"])


def test_the_distance_of_captions_is_to_the_bank_and_of_words_to_their_target():
    axes = jnp.eye(4)
    texts = unit([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    target = jnp.stack([axes[3], axes[3], -axes[3]])  # of the captions it is not read
    batch = {"text_label": jnp.array([0, 2, -1])}
    captions, words = losses.text_distances(texts, axes, target, batch)
    assert float(captions) == pytest.approx(((1 - 0.6) + (1 - 1)) / 2, abs=1e-6)
    assert float(words) == pytest.approx(2.0, abs=1e-6)


def test_without_names_there_is_no_name_loss(prototype_params, arrays, prototype_sentences):
    config = dataclasses.replace(CONFIG, batch=dataclasses.replace(CONFIG.batch, names=0, spoken=0))
    batch = jax.tree.map(jnp.asarray, next(pipeline.batches(config, arrays)))
    outputs = {
        "logits": jnp.zeros((len(batch["target"]), CONFIG.model.vocab_size)),
        "embedding": jnp.eye(len(batch["label"]), WIDTH),
        "texts": jnp.eye(len(batch["texts"]), WIDTH),
        "lines": jnp.zeros((len(batch["lines"]), CONFIG.model.line_columns, 96)),
    }
    run = jax.jit(lambda *inputs: losses.total(config, *inputs, jax.random.key(0)))
    total, parts = run(prototype_params, outputs, batch, prototype_sentences)
    names = {"caption", "vqa", "lines", "retrieval", "text_caption", "text_teacher"}
    assert set(parts) == names
    weights = dataclasses.asdict(CONFIG.loss)
    expected = sum(weights[name] * float(value) for name, value in parts.items())
    assert float(total) == pytest.approx(expected, rel=1e-5)
