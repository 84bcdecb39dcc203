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
    """Features that hold 100 * view + picture, so that a batch tells what it was drawn from."""
    place = np.arange(pictures, dtype=np.float16)[:, None, None, None]
    return tuple(place + np.float16(100 * view) for view in range(views))


def captioned(captions, weight=None):
    """Pictures with that many captions each; a caption's ids are (1 + picture, 1 + its place)."""
    pictures = len(captions)
    rows = [[1 + i, 1 + k] for i, count in enumerate(captions) for k in range(count)]
    return pipeline.Captioned(
        features=cells_of(pictures),
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


def rows_of(texts, firsts, width):
    return pipeline.pack([[np.array(text) for text in row] for row in texts], firsts, width)


def test_texts_are_packed_behind_one_another_and_what_does_not_fit_is_left_out():
    rows = rows_of([[[5, 6, 0], [7, 8, 9], [4, 3, 0]], [[2, 1, 0]]], [[0, 1, 0], [1]], 4)
    assert rows.ids.tolist() == [[5, 6, 4, 3], [2, 1, 0, 0]]
    assert rows.start.tolist() == [[0, 0, 2, 2], [0, 0, 2, 3]]
    assert rows.first.tolist() == [[0, 0, 2, 2], [1, 1, 2, 3]]


def test_targets_are_the_next_tokens_of_the_same_text_from_the_answer_on():
    rows = rows_of([[[5, 11, 3], [7, 8, 12, 3]], [[6]]], [[0, 1], [0]], 7)
    got = pipeline.targets(rows, room=5)
    # 11 and 3 from places 0 and 1; the second text starts at its <ans>; the last is too short.
    expected = {
        "position": [0, 1, 4, 5, 0],
        "target": [11, 3, 12, 3, 0],
        "target_weight": [1, 1, 1, 1, 0],
        "target_row": [0, 0, 0, 0, 0],
    }
    assert {name: got[name].tolist() for name in expected} == expected
    np.testing.assert_array_equal(got["ids"], rows.ids)
    np.testing.assert_array_equal(got["start"], rows.start)


def test_more_targets_than_room_are_refused_with_the_field_to_raise():
    rows = rows_of([[[1, 1, 1, 1]], [[1, 1, 1, 1]]], [[0], [0]], 4)
    assert pipeline.targets(rows, room=6)["target_weight"].all()
    message = "data.answer_tokens leaves room for 5 targets a step, got 6: raise it"
    with pytest.raises(ValueError, match=message):
        pipeline.targets(rows, room=5)


def test_targets_of_a_batch_equal_a_naive_loop():
    batch = pipeline.BuildBatch(CONFIG, ARRAYS).random_map(0, np.random.default_rng(0))
    expected = []
    for row, tokens in enumerate(batch["ids"].tolist()):
        # Synthetic captions are three tokens; questions have five, and <ans> is token 8.
        asked = row >= CONFIG.mix.captioned
        for column in range(0, len(tokens), 5 if asked else 3):
            text = tokens[column : column + (5 if asked else 3)]
            for place in range(text.index(8) if asked and any(text) else 0, len(text) - 1):
                if text[place + 1]:
                    at = row * len(tokens) + column + place
                    expected.append((at, text[place + 1], row))
    real = batch["target_weight"] == 1
    got = zip(*(batch[name][real] for name in ("position", "target", "target_row")), strict=True)
    assert [tuple(map(int, each)) for each in got] == expected


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
    asked = np.array([0, 0, 0, 1])
    ids = np.array([[30 + i, 8, 40 + i, 3] for i in range(4)], np.int32)
    shape = (1, *ARRAYS.emoji.features[0].shape[1:])
    features = tuple(np.tile(view, shape) for view in cells_of(2))
    questioned = pipeline.Questioned(features, ids, np.full(4, 1), asked)
    arrays = dataclasses.replace(ARRAYS, composites_vqa=questioned)
    mix = dict.fromkeys(("emoji", "stamps", "composites", "easy_vqa"), 0)
    config = with_config(mix={**mix, "composites_vqa": 400}, data={"row_tokens": 20})
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
    arrays = dataclasses.replace(ARRAYS, emoji=emoji, stamps=stamps)
    config = with_config(mix={"spoken": 400})
    batch = pipeline.BuildBatch(config, arrays)._spoken(np.random.default_rng(0))
    share = np.bincount(batch["spoken_label"], minlength=7) / 400
    assert set(batch["spoken_label"]) == {4, 6}
    assert share[4] == pytest.approx(0.5, abs=4 * 0.5 / 400**0.5)
    assert (batch["spoken_ids"][batch["spoken_label"] == 6][:, :2] == [1, 1]).all()


def test_a_batch_has_the_shapes_the_config_says():
    mix, data, model = CONFIG.mix, CONFIG.data, CONFIG.model
    batch = next(pipeline.batches(CONFIG, ARRAYS))
    half, asked = mix.texts // 2, mix.pictures - mix.captioned
    room = mix.captioned * (data.row_tokens - 1) + asked * data.answer_tokens
    more, most = mix.names * (data.name_tokens - 1), mix.spoken * (data.row_tokens - 1)
    grid, channels = model.feature_grid, model.feature_channels
    assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
        "features": ((mix.pictures, grid, grid, channels), "float16"),
        "ids": ((mix.pictures, data.row_tokens), "int32"),
        "start": ((mix.pictures, data.row_tokens), "int32"),
        "label": ((mix.pictures,), "int32"),
        "position": ((room,), "int32"),
        "target": ((room,), "int32"),
        "target_weight": ((room,), "float32"),
        "target_row": ((room,), "int32"),
        "name_features": ((mix.names, grid, grid, channels), "float16"),
        "name_ids": ((mix.names, data.name_tokens), "int32"),
        "name_start": ((mix.names, data.name_tokens), "int32"),
        "name_label": ((mix.names,), "int32"),
        "name_position": ((more,), "int32"),
        "name_target": ((more,), "int32"),
        "name_target_weight": ((more,), "float32"),
        "name_target_row": ((more,), "int32"),
        "spoken_label": ((mix.spoken,), "int32"),
        "spoken_ids": ((mix.spoken, data.row_tokens), "int32"),
        "spoken_start": ((mix.spoken, data.row_tokens), "int32"),
        "spoken_position": ((most,), "int32"),
        "spoken_target": ((most,), "int32"),
        "spoken_target_weight": ((most,), "float32"),
        "spoken_target_row": ((most,), "int32"),
        "lines": ((mix.lines, model.line_height, model.line_width), "uint8"),
        "line_ids": ((mix.lines, data.line_chars), "int32"),
        "texts": ((mix.texts, data.text_tokens), "int32"),
        "text_label": ((mix.texts,), "int32"),
        "text_teacher": ((mix.texts, synthetic.TEACHER_WIDTH), "float16"),
    }
    assert (batch["label"][-asked:] == pipeline.NO_LABEL).all()
    assert (batch["label"][:-asked] >= 0).all()
    assert (batch["name_label"] >= 0).all()
    assert (batch["text_label"][:half] >= 0).all()
    assert (batch["text_label"][half:] == pipeline.NO_LABEL).all()


def test_a_task_of_zero_examples_is_left_out():
    config = with_config(mix={"stamps": 0, "easy_vqa": 0})
    batch = next(pipeline.batches(config, ARRAYS))
    assert len(batch["features"]) == config.mix.pictures == 10


@pytest.mark.parametrize(
    "mix",
    [
        dict.fromkeys(("emoji", "stamps", "composites", "composites_vqa", "easy_vqa"), 0),
        {"lines": 0, "texts": 0},
        {"names": 1},
        {"names": 0, "spoken": 0},
    ],
    ids=["no pictures", "neither lines nor texts", "one name", "no names"],
)
def test_a_batch_without_a_task_has_no_rows_of_it(mix):
    config = with_config(mix=mix)
    batch = next(pipeline.batches(config, ARRAYS))
    assert len(batch["features"]) == len(batch["ids"]) == len(batch["label"]) == config.mix.pictures
    assert len(batch["lines"]) == config.mix.lines
    assert len(batch["texts"]) == config.mix.texts
    assert len(batch.get("name_features", ())) == config.mix.names
    assert len(batch.get("spoken_ids", ())) == config.mix.spoken


def test_texts_are_drawn_by_weight_and_words_equally():
    texts = pipeline.Texts(
        ids=np.arange(4, dtype=np.int32)[:, None],
        label=np.array([7, 8, -1, -1]),
        weight=np.array([1.0, 0.0, 0.0, 0.0]),
        teacher=np.zeros((4, synthetic.TEACHER_WIDTH), np.float16),
        prototype_sentences=np.zeros((9, synthetic.TEACHER_WIDTH), np.float16),
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
