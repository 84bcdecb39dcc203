"""What a batch holds: targets by hand, a mixture by count, an order by seed and step alone."""

import dataclasses

import grain
import numpy as np
import pytest

from configs import tiny
from mmllm.common import config as config_lib
from mmllm.data import pipeline, synthetic

CONFIG = config_lib.resolve(tiny.get_config())
ARRAYS = synthetic.training_arrays(CONFIG)
PICTURES = 10
DRAWS = 4000
# Four standard deviations of a share of one half over DRAWS draws.
SHARE_TOLERANCE = 4 * 0.5 / DRAWS**0.5


def cells_of(pictures, views=2):
    """Cells that hold 100 * view + picture, so that a batch tells what it was drawn from."""
    place = np.arange(pictures, dtype=np.float16)[:, None, None, None]
    return tuple(place + np.float16(100 * view) for view in range(views))


def captioned(captions, weight=None):
    """Pictures with that many captions each; a caption's ids are (1 + picture, 1 + its place)."""
    pictures = len(captions)
    rows = [[1 + i, 1 + k] for i, count in enumerate(captions) for k in range(count)]
    return pipeline.Captioned(
        cells=cells_of(pictures),
        ids=np.array(rows, np.int32),
        first=np.cumsum([0, *captions]),
        label=50 + np.arange(pictures),
        weight=np.ones(pictures) if weight is None else np.array(weight),
    )


def drawn(source, english_share=0.5, longest=2):
    rng = np.random.default_rng(0)
    cells, ids, label = pipeline._captioned(source, DRAWS, english_share, longest, rng)
    return cells[:, 0, 0, 0].astype(int), ids, label


def with_config(**sections):
    cfg = tiny.get_config()
    for section, changes in sections.items():
        cfg[section].update(changes)
    return config_lib.resolve(cfg)


def test_targets_are_the_next_tokens_from_the_answer_on():
    ids = np.array([[5, 11, 3, 0], [7, 8, 12, 3], [6, 0, 0, 0]])
    targets = pipeline._targets(ids, np.array([0, 1, 0]), room=6)
    # Row 0 predicts 11 and 3 from places 0 and 1; row 1 starts at its <ans>; row 2 is empty.
    expected = {
        "position": [0, 1, 5, 6, 0, 0],
        "target": [11, 3, 12, 3, 0, 0],
        "target_weight": [1, 1, 1, 1, 0, 0],
        "target_row": [0, 0, 1, 1, 0, 0],
    }
    assert {name: value.tolist() for name, value in targets.items()} == expected


def test_more_targets_than_room_are_refused_with_the_field_to_raise():
    ids = np.ones((2, 4), np.int32)
    assert pipeline._targets(ids, np.zeros(2, int), room=6)["target_weight"].all()
    message = "data.targets_per_example leaves room for 5 targets a step, got 6: raise it"
    with pytest.raises(ValueError, match=message):
        pipeline._targets(ids, np.zeros(2, int), room=5)


def test_targets_of_a_batch_equal_a_naive_loop():
    config = CONFIG
    batch = pipeline.BuildBatch(config, ARRAYS).random_map(0, np.random.default_rng(0))
    real = batch["target_weight"] == 1
    flat = batch["ids"].reshape(-1)
    np.testing.assert_array_equal(flat[batch["position"][real] + 1], batch["target"][real])
    np.testing.assert_array_equal(
        batch["position"][real] // batch["ids"].shape[1], batch["target_row"][real]
    )
    # Synthetic captions have two targets, questions two from their <ans> on.
    assert real.sum() == 2 * config.mix.pictures


def test_pictures_are_drawn_by_weight_and_never_with_weight_zero():
    picture, _, _ = drawn(captioned([1, 1, 1], weight=[1, 0, 3]))
    share = np.bincount(picture % 100, minlength=3) / DRAWS
    assert share[1] == 0
    assert share[2] == pytest.approx(0.75, abs=SHARE_TOLERANCE)


def test_every_view_is_drawn_equally_often():
    view = drawn(captioned([1]))[0] // 100
    assert np.mean(view == 1) == pytest.approx(0.5, abs=SHARE_TOLERANCE)


@pytest.mark.parametrize("english_share", [0.0, 0.3, 1.0])
def test_english_has_its_share_and_the_other_languages_share_the_rest(english_share):
    place = drawn(captioned([4]), english_share)[1][:, 1]
    share = np.bincount(place, minlength=5)[1:] / DRAWS
    rest = (1 - english_share) / 3
    np.testing.assert_allclose(share, [english_share, rest, rest, rest], atol=SHARE_TOLERANCE)
    assert (share[0] == 0) == (english_share == 0)


def test_a_picture_with_english_alone_is_captioned_in_english():
    assert (drawn(captioned([1, 1]), english_share=0.0)[1][:, 1] == 1).all()


def test_a_caption_and_its_label_stay_with_their_picture():
    captions = [1 + i % 4 for i in range(PICTURES)]
    picture, ids, label = drawn(captioned(captions))
    np.testing.assert_array_equal(ids[:, 0], 1 + picture % 100)
    np.testing.assert_array_equal(label, 50 + picture % 100)
    assert (ids[:, 1] <= np.array(captions)[picture % 100]).all()


def test_a_caption_too_long_is_not_drawn():
    ids = [[1, 1, 0], [1, 2, 9], [1, 3, 0], [2, 1, 9], [2, 2, 0], [3, 1, 0], [3, 2, 9]]
    source = captioned([3, 2, 2])
    source = dataclasses.replace(source, ids=np.array(ids, np.int32))
    picture, rows, _ = drawn(source, english_share=0.0)
    assert rows.shape == (DRAWS, 2)
    # Picture 1 has no English that fits; picture 2 is named in English instead.
    assert {tuple(row) for row in rows.tolist()} == {(1, 1), (1, 3), (3, 1)}
    assert set(picture % 100) == {0, 2}
    picture, rows, _ = drawn(source, english_share=0.0, longest=3)
    assert set(picture % 100) == {0, 1, 2}
    assert (2, 2, 0) in {tuple(row) for row in rows.tolist()}


def test_a_question_keeps_its_picture_and_the_place_of_its_answer():
    picture = np.arange(30) % PICTURES
    source = pipeline.Questioned(
        cells=cells_of(PICTURES),
        ids=np.stack([np.arange(30), picture], axis=1),
        answer=2 * np.arange(30),
        picture=picture,
    )
    cells, ids, answer = pipeline._questioned(source, DRAWS, np.random.default_rng(0))
    np.testing.assert_array_equal(cells[:, 0, 0, 0].astype(int) % 100, ids[:, 1])
    np.testing.assert_array_equal(answer, 2 * ids[:, 0])
    assert set(ids[:, 0]) == set(range(30))


def test_a_batch_has_the_shapes_the_config_says():
    mix, data, model = CONFIG.mix, CONFIG.data, CONFIG.model
    batch = next(pipeline.batches(CONFIG, ARRAYS))
    room, half = mix.pictures * data.targets_per_example, mix.texts // 2
    more = mix.names * data.targets_per_example
    grid, channels = model.stem_grid, model.stem_channels
    assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
        "cells": ((mix.pictures, grid, grid, channels), "float16"),
        "ids": ((mix.pictures, data.decoder_tokens), "int32"),
        "label": ((mix.pictures,), "int32"),
        "position": ((room,), "int32"),
        "target": ((room,), "int32"),
        "target_weight": ((room,), "float32"),
        "target_row": ((room,), "int32"),
        "name_cells": ((mix.names, grid, grid, channels), "float16"),
        "name_ids": ((mix.names, data.name_tokens), "int32"),
        "name_label": ((mix.names,), "int32"),
        "name_position": ((more,), "int32"),
        "name_target": ((more,), "int32"),
        "name_target_weight": ((more,), "float32"),
        "name_target_row": ((more,), "int32"),
        "lines": ((mix.lines, model.line_height, model.line_width), "uint8"),
        "line_ids": ((mix.lines, data.line_chars), "int32"),
        "texts": ((mix.texts, data.text_tokens), "int32"),
        "text_label": ((mix.texts,), "int32"),
        "text_teacher": ((mix.texts, synthetic.TEACHER_WIDTH), "float16"),
    }
    asked = mix.composites_vqa + mix.easy_vqa
    assert (batch["label"][-asked:] == pipeline.NO_LABEL).all()
    assert (batch["label"][:-asked] >= 0).all()
    assert (batch["name_label"] >= 0).all()
    assert (batch["text_label"][:half] >= 0).all()
    assert (batch["text_label"][half:] == pipeline.NO_LABEL).all()


def test_a_task_of_zero_examples_is_left_out():
    config = with_config(mix={"stamps": 0, "easy_vqa": 0})
    batch = next(pipeline.batches(config, ARRAYS))
    assert len(batch["cells"]) == config.mix.pictures == 10


@pytest.mark.parametrize(
    "mix",
    [
        dict.fromkeys(("emoji", "stamps", "composites", "composites_vqa", "easy_vqa"), 0),
        {"lines": 0, "texts": 0},
        {"names": 1},
        {"names": 0},
    ],
    ids=["no pictures", "neither lines nor texts", "one name", "no names"],
)
def test_a_batch_without_a_task_has_no_rows_of_it(mix):
    config = with_config(mix=mix)
    batch = next(pipeline.batches(config, ARRAYS))
    assert len(batch["cells"]) == len(batch["ids"]) == len(batch["label"]) == config.mix.pictures
    assert len(batch["lines"]) == config.mix.lines
    assert len(batch["texts"]) == config.mix.texts
    assert len(batch.get("name_cells", ())) == config.mix.names


def test_texts_are_drawn_by_weight_and_words_equally():
    texts = pipeline.Texts(
        ids=np.arange(4, dtype=np.int32)[:, None],
        label=np.array([7, 8, -1, -1]),
        weight=np.array([1.0, 0.0, 0.0, 0.0]),
        teacher=np.zeros((4, synthetic.TEACHER_WIDTH), np.float16),
        bank_teacher=np.zeros((9, synthetic.TEACHER_WIDTH), np.float16),
    )
    config = with_config(mix={"texts": 40})
    build = pipeline.BuildBatch(config, dataclasses.replace(ARRAYS, texts=texts))
    drawn_ids = build._texts(np.random.default_rng(0))["texts"][:, 0]
    assert set(drawn_ids[:20]) == {0}
    assert set(drawn_ids[20:]) == {2, 3}


@pytest.mark.parametrize("prefetch", [1, 8])
def test_batches_are_the_same_whatever_the_threads_and_the_prefetch(prefetch):
    config = with_config(train={"prefetch": prefetch})
    threaded = pipeline.batches(config, ARRAYS)
    # The second opinion builds each step alone, without threads.
    steps = grain.MapDataset.range(1).repeat().seed(config.seed)
    alone = steps.random_map(pipeline.BuildBatch(config, ARRAYS))
    for step in range(5):
        got, expected = next(threaded), alone[step]
        assert expected is not None
        for name, value in expected.items():
            np.testing.assert_array_equal(got[name], value)


def test_a_saved_place_gives_the_next_batch():
    iterator = pipeline.batches(CONFIG, ARRAYS)
    for _ in range(3):
        next(iterator)
    place, expected = iterator.get_state(), next(iterator)
    resumed = pipeline.batches(CONFIG, ARRAYS)
    resumed.set_state(place)
    got = next(resumed)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value)


def test_another_seed_gives_another_batch():
    other = dataclasses.replace(CONFIG, seed=1)
    one, two = (next(pipeline.batches(config, ARRAYS)) for config in (CONFIG, other))
    assert any((one[name] != two[name]).any() for name in ("ids", "texts", "lines"))
