"""What a batch holds: targets by hand, a mixture by count, an order by seed and step alone."""

import dataclasses
import hashlib

import grain
import numpy as np
import pytest

from configs import tiny
from mmllm.common import config as config_lib
from mmllm.data import pipeline, registry, synthetic

CONFIG = config_lib.resolve(tiny.get_config())
ARRAYS = synthetic.training_arrays(CONFIG)
PICTURES = 10
DRAWS = 4000
# Four standard deviations of a share of one half over DRAWS draws.
SHARE_TOLERANCE = 4 * 0.5 / DRAWS**0.5


def features_of(pictures, views=2):
    """Features that hold 100 * view + picture, so that a batch tells what it was drawn from."""
    place = np.arange(pictures, dtype=np.float16)[:, None, None, None]
    return tuple(place + np.float16(100 * view) for view in range(views))


def captioned(captions, weight=None):
    """Pictures with that many captions each; a caption's ids are (1 + picture, 1 + its place)."""
    pictures = len(captions)
    rows = [[1 + i, 1 + k] for i, count in enumerate(captions) for k in range(count)]
    return pipeline.Captioned(
        features=features_of(pictures),
        ids=np.array(rows, np.int32),
        first=np.cumsum([0, *captions]),
        label=50 + np.arange(pictures),
        weight=np.ones(pictures) if weight is None else np.array(weight),
    )


def drawn(source, longest=2):
    rng = np.random.default_rng(0)
    return pipeline.draw_captioned(source, DRAWS, longest, rng)


def with_config(**sections):
    cfg = tiny.get_config()
    for section, changes in sections.items():
        cfg[section].update(changes)
    return config_lib.resolve(cfg)


def test_targets_of_a_batch_equal_a_naive_loop():
    batch = pipeline.BuildBatch(CONFIG, ARRAYS).random_map(0, np.random.default_rng(0))
    expected = []
    for row, tokens in enumerate(batch["ids"].tolist()):
        # Synthetic captions are three tokens; questions have five, and <ans> is token 8.
        is_question = row >= CONFIG.batch.captions
        for column in range(0, len(tokens), 5 if is_question else 3):
            text = tokens[column : column + (5 if is_question else 3)]
            answer = text.index(8) if is_question and any(text) else 0
            for place in range(answer, len(text) - 1):
                if text[place + 1]:
                    at = row * len(tokens) + column + place
                    expected.append((at, text[place + 1], row))
    real = batch["target_weight"] == 1
    found = zip(*(batch[name][real] for name in ("position", "target", "target_row")), strict=True)
    assert [tuple(map(int, each)) for each in found] == expected


def test_pictures_are_drawn_by_weight_and_never_with_weight_zero():
    picture = drawn(captioned([1, 1, 1], weight=[1, 0, 3]))
    share = np.bincount(picture, minlength=3) / DRAWS
    assert share[1] == 0
    assert share[2] == pytest.approx(0.75, abs=SHARE_TOLERANCE)


def test_every_view_is_drawn_equally_often():
    features = pipeline._features(captioned([1]), np.zeros(DRAWS, int), np.random.default_rng(0))
    view = features[:, 0, 0, 0].astype(int) // 100
    assert np.mean(view == 1) == pytest.approx(0.5, abs=SHARE_TOLERANCE)


def test_english_comes_first_and_the_other_languages_in_any_order():
    picture = np.zeros(DRAWS, int)
    texts = pipeline.captions_of(captioned([4]), picture, np.random.default_rng(0))
    place = np.array(texts)[:, :, 1]
    assert (place[:, 0] == 1).all()
    assert (np.sort(place, axis=1) == [1, 2, 3, 4]).all()
    for column in (1, 2, 3):
        share = np.bincount(place[:, column], minlength=5)[2:] / DRAWS
        np.testing.assert_allclose(share, 1 / 3, atol=SHARE_TOLERANCE)


def test_captions_stay_with_their_picture():
    counts = [1 + i % 4 for i in range(PICTURES)]
    source = captioned(counts)
    picture = drawn(source)
    for about, texts in zip(
        picture, pipeline.captions_of(source, picture, np.random.default_rng(0)), strict=True
    ):
        assert [text[0] for text in texts] == [1 + about] * counts[about]


def test_a_picture_whose_english_caption_is_too_long_is_not_drawn():
    ids = [[1, 1, 0], [1, 2, 9], [2, 1, 9], [2, 2, 0], [3, 1, 0], [3, 2, 9]]
    source = dataclasses.replace(captioned([2, 2, 2]), ids=np.array(ids, np.int32))
    assert set(drawn(source)) == {0, 2}
    assert set(drawn(source, longest=3)) == {0, 1, 2}
    with pytest.raises(
        ValueError, match=r"no caption has at most 1 tokens; raise data.name_tokens"
    ):
        drawn(source, longest=1)


def test_questions_share_a_row_with_others_about_their_picture():
    picture = np.array([0, 0, 0, 1])
    ids = np.array([[30 + i, 8, 40 + i, 3] for i in range(4)], np.int32)
    shape = (1, *ARRAYS.captioned["emoji"].features[0].shape[1:])
    features = tuple(np.tile(view, shape) for view in features_of(2))
    questioned = pipeline.Questioned(features, ids, np.full(4, 1), picture)
    arrays = dataclasses.replace(ARRAYS, questioned={"composites": questioned})
    config = with_config(
        mix={"easy_vqa": 0}, batch={"captions": 0, "questions": 400}, data={"row_tokens": 20}
    )
    batch = pipeline.BuildBatch(config, arrays)._pictures(np.random.default_rng(0))
    first = np.bincount(batch["ids"][:, 0] - 30, minlength=4) / 400
    np.testing.assert_allclose(first, 0.25, atol=4 * (0.25 * 0.75 / 400) ** 0.5)
    for row, features in zip(batch["ids"], batch["features"][:, 0, 0, 0], strict=True):
        about = {0: {30, 31, 32}, 1: {33}}[int(features) % 100]
        assert set(row[::4].tolist()) - {0} == about
    assert (batch["start"][:, :4] == 0).all()
    # From <ans> on: the answer and the end.
    assert set(batch["target"][batch["target_weight"] == 1]) == {3, 40, 41, 42, 43}


def test_every_name_is_spoken_equally_often():
    # Picture 2 shows what picture 0 shows; picture 1 is never drawn.
    emoji = dataclasses.replace(captioned([2, 2, 2]), label=np.array([4, 5, 4]))
    emoji = dataclasses.replace(emoji, weight=np.array([1.0, 0.0, 1.0]))
    stamps = dataclasses.replace(captioned([1]), label=np.array([6]))
    arrays = dataclasses.replace(ARRAYS, captioned={"emoji": emoji, "stamps": stamps})
    config = with_config(batch={"spoken": 400})
    batch = pipeline.BuildBatch(config, arrays)._spoken(np.random.default_rng(0))
    share = np.bincount(batch["spoken_label"], minlength=7) / 400
    assert set(batch["spoken_label"]) == {4, 6}
    assert share[4] == pytest.approx(0.5, abs=4 * 0.5 / 400**0.5)
    assert (batch["spoken_ids"][batch["spoken_label"] == 6][:, :2] == [1, 1]).all()


def test_a_batch_has_the_shapes_the_config_says():
    sizes, data, model = CONFIG.batch, CONFIG.data, CONFIG.model
    batch = next(pipeline.batches(CONFIG, ARRAYS))
    half, questions = sizes.texts // 2, sizes.questions
    room = sizes.captions * (data.row_tokens - 1) + questions * data.answer_tokens
    more, most = sizes.names * (data.name_tokens - 1), sizes.spoken * (data.row_tokens - 1)
    grid, channels = model.feature_grid, model.feature_channels
    assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
        "features": ((sizes.pictures, grid, grid, channels), "float16"),
        "ids": ((sizes.pictures, data.row_tokens), "int32"),
        "start": ((sizes.pictures, data.row_tokens), "int32"),
        "label": ((sizes.pictures,), "int32"),
        "position": ((room,), "int32"),
        "target": ((room,), "int32"),
        "target_weight": ((room,), "float32"),
        "target_row": ((room,), "int32"),
        "name_features": ((sizes.names, grid, grid, channels), "float16"),
        "name_ids": ((sizes.names, data.name_tokens), "int32"),
        "name_start": ((sizes.names, data.name_tokens), "int32"),
        "name_label": ((sizes.names,), "int32"),
        "name_position": ((more,), "int32"),
        "name_target": ((more,), "int32"),
        "name_target_weight": ((more,), "float32"),
        "name_target_row": ((more,), "int32"),
        "spoken_label": ((sizes.spoken,), "int32"),
        "spoken_ids": ((sizes.spoken, data.row_tokens), "int32"),
        "spoken_start": ((sizes.spoken, data.row_tokens), "int32"),
        "spoken_position": ((most,), "int32"),
        "spoken_target": ((most,), "int32"),
        "spoken_target_weight": ((most,), "float32"),
        "spoken_target_row": ((most,), "int32"),
        "lines": ((sizes.lines, model.line_height, model.line_width), "uint8"),
        "line_ids": ((sizes.lines, data.line_chars), "int32"),
        "texts": ((sizes.texts, data.text_tokens), "int32"),
        "text_label": ((sizes.texts,), "int32"),
        "text_teacher": ((sizes.texts, synthetic.TEACHER_WIDTH), "float16"),
    }
    assert (batch["label"][-questions:] == pipeline.NO_LABEL).all()
    assert (batch["label"][:-questions] >= 0).all()
    assert (batch["name_label"] >= 0).all()
    assert (batch["text_label"][:half] >= 0).all()
    assert (batch["text_label"][half:] == pipeline.NO_LABEL).all()


def test_a_corpus_without_weight_gives_nothing():
    config = with_config(mix={"stamps": 0, "easy_vqa": 0})
    batch = next(pipeline.batches(config, ARRAYS))
    assert len(batch["features"]) == config.batch.pictures
    assert registry.counts(config, "caption", 8) == {"emoji": 5, "composites": 3}
    assert registry.counts(config, "question", 8) == {"composites": 8}


KEYS = {
    "captions": "features",
    "questions": "features",
    "names": "name_features",
    "spoken": "spoken_ids",
    "lines": "lines",
    "texts": "texts",
}


@pytest.mark.parametrize(
    "changes",
    [
        {"captions": 0, "questions": 0},
        {"captions": 0},
        {"questions": 0},
        {"lines": 0, "texts": 0},
        {"names": 1},
        {"names": 0, "spoken": 0},
    ],
    ids=" ".join,
)
def test_a_batch_without_a_task_has_no_key_of_it(changes):
    config = with_config(batch=changes)
    batch = next(pipeline.batches(config, ARRAYS))
    assert len(batch.get("features", ())) == config.batch.pictures
    for task, key in KEYS.items():
        count = config.batch.pictures if key == "features" else getattr(config.batch, task)
        assert len(batch.get(key, ())) == count
        assert (key in batch) == bool(count)


def test_a_task_that_no_corpus_of_the_mixture_has_is_refused():
    config = with_config(mix={"ocr_lines": 0})
    message = "batch.lines is 8, but no corpus of the mixture has the task 'line': give one of ocr_"
    with pytest.raises(ValueError, match=message):
        pipeline.batches(config, ARRAYS)


def digest(batch) -> str:
    """Of names, types, shapes and values; the features under the name they had at first."""
    found = hashlib.sha256()
    renamed = {key.replace("features", "cells"): value for key, value in batch.items()}
    for key in sorted(renamed):
        value = renamed[key] + 0 if renamed[key].dtype.kind == "f" else renamed[key]  # no -0.0
        found.update(f"{key} {value.dtype} {value.shape}\n".encode())
        found.update(np.ascontiguousarray(value).tobytes())
    return found.hexdigest()[:16]


def test_batches_are_those_of_before_corpora_had_a_registry():
    iterator = pipeline.batches(CONFIG, ARRAYS)
    assert [digest(next(iterator)) for _ in range(3)] == [
        "f4c5c022a5d547d4",
        "497ce6ea65d07e5a",
        "11439ab1a84d884f",
    ]


def test_texts_are_drawn_by_weight_and_words_equally():
    texts = pipeline.Texts(
        ids=np.arange(4, dtype=np.int32)[:, None],
        label=np.array([7, 8, -1, -1]),
        weight=np.array([1.0, 0.0, 0.0, 0.0]),
        teacher=np.ones((2, synthetic.TEACHER_WIDTH), np.float16),
        prototype_sentences=np.zeros((9, synthetic.TEACHER_WIDTH), np.float16),
    )
    batch = pipeline.draw_texts(texts, 40, np.random.default_rng(0))
    drawn_ids = batch["texts"][:, 0]
    assert set(drawn_ids[:20]) == {0}
    assert set(drawn_ids[20:]) == {2, 3}
    assert not batch["text_teacher"][:20].any()
    assert (batch["text_teacher"][20:] == 1).all()


def test_a_sample_of_prototypes_holds_each_caption_once_with_its_own_sentence():
    sentences = np.arange(5000, dtype=np.float16)[:, None] * np.ones((1, 4), np.float16)
    labels = {"label": np.array([7, -1, 7, 2047]), "text_label": np.array([-1, 3])}
    batch = pipeline.sample_prototypes(labels, sentences, 2000, np.random.default_rng(0))
    place, rows = batch["prototype_place"], batch["prototype_sentences"]
    assert place.shape == (2006,)
    known = place[place >= 0]
    assert len(set(known.tolist())) == len(known) < 2000  # some were drawn twice
    assert (place[len(known) :] == pipeline.NO_LABEL).all()
    np.testing.assert_array_equal(rows[: len(known)], sentences[known])
    for name, label in labels.items():
        moved = batch[name]
        np.testing.assert_array_equal(moved < 0, label < 0)
        np.testing.assert_array_equal(place[moved[moved >= 0]], label[label >= 0])


def test_a_batch_carries_its_prototypes_where_negatives_are_drawn():
    config = with_config(prototypes={"negatives": 5})
    plain, batch = (next(pipeline.batches(each, ARRAYS)) for each in (CONFIG, config))
    labels = sum(len(batch[name]) for name in pipeline.LABELS)
    assert batch["prototype_sentences"].shape == (5 + labels, synthetic.TEACHER_WIDTH)
    moved = batch["prototype_place"][batch["name_label"]]
    np.testing.assert_array_equal(moved, plain["name_label"])
    np.testing.assert_array_equal(batch["features"], plain["features"])


@pytest.mark.parametrize("prefetch", [1, 8])
def test_batches_are_the_same_whatever_the_threads_and_the_prefetch(prefetch):
    config = with_config(train={"prefetch": prefetch})
    threaded = pipeline.batches(config, ARRAYS)
    # The second opinion builds each step alone, without threads.
    steps = grain.MapDataset.range(1).repeat().seed(config.seed)
    alone = steps.random_map(pipeline.BuildBatch(config, ARRAYS))
    for step in range(5):
        found, expected = next(threaded), alone[step]
        assert expected is not None
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)


def test_a_saved_place_gives_the_next_batch():
    iterator = pipeline.batches(CONFIG, ARRAYS)
    for _ in range(3):
        next(iterator)
    place, expected = iterator.get_state(), next(iterator)
    resumed = pipeline.batches(CONFIG, ARRAYS)
    resumed.set_state(place)
    found = next(resumed)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_another_seed_gives_another_batch():
    other = dataclasses.replace(CONFIG, seed=1)
    one, two = (next(pipeline.batches(config, ARRAYS)) for config in (CONFIG, other))
    assert any((one[name] != two[name]).any() for name in ("ids", "texts", "lines"))
