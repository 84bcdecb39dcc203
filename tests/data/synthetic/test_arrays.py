"""Generated arrays: repeatable, of the shapes of a config, and learnable."""

import dataclasses

import numpy as np
import pytest

from configs import tiny
from mmllm.common import config as config_lib
from mmllm.data import pipeline, synthetic

CONFIG = config_lib.resolve(tiny.get_config())


@pytest.fixture(scope="module")
def arrays():
    return synthetic.training_arrays(CONFIG)


def leaves(value):
    if isinstance(value, dict):
        return [x for part in value.values() for x in leaves(part)]
    if dataclasses.is_dataclass(value):
        return [x for f in dataclasses.fields(value) for x in leaves(getattr(value, f.name))]
    return list(value) if isinstance(value, tuple) else [value]


def test_the_same_seed_gives_the_same_arrays_and_another_seed_others(arrays):
    again, other = synthetic.training_arrays(CONFIG), synthetic.training_arrays(CONFIG, seed=1)
    for one, same in zip(leaves(arrays), leaves(again), strict=True):
        np.testing.assert_array_equal(one, same)
    assert (arrays.captioned["emoji"].features[0] != other.captioned["emoji"].features[0]).any()


def test_features_have_the_backbone_shape_and_two_views_of_each_picture_are_alike(arrays):
    grid, channels = CONFIG.model.feature_grid, CONFIG.model.feature_channels
    one, two = (view.reshape(synthetic.CAPTIONS, -1) for view in arrays.captioned["emoji"].features)
    assert arrays.captioned["emoji"].features[0].shape == (synthetic.CAPTIONS, grid, grid, channels)
    nearest = np.argmax(one.astype(np.float32) @ two.astype(np.float32).T, axis=1)
    np.testing.assert_array_equal(nearest, np.arange(synthetic.CAPTIONS))


def test_captions_and_answers_name_the_label(arrays):
    captions, questions = arrays.captioned["emoji"], arrays.questioned["easy_vqa"]
    for picture, label in enumerate(captions.label):
        rows = captions.ids[captions.first[picture] : captions.first[picture + 1]]
        assert rows[:, :3].tolist() == [[5, 20 + label, 3], [6, 20 + label, 3]]
    answers = questions.ids[np.arange(synthetic.CAPTIONS), questions.answer + 1]
    np.testing.assert_array_equal(answers, 20 + questions.picture)


def test_texts_are_captions_and_words_with_a_teacher_of_length_one(arrays):
    texts = arrays.texts
    length = np.linalg.norm(texts.teacher.astype(np.float32), axis=1)
    is_word = texts.label == pipeline.NO_LABEL
    assert len(length) == is_word.sum()
    np.testing.assert_allclose(length, 1, atol=1e-3)  # float16
    assert sorted(texts.label[~is_word]) == list(range(len(texts.prototype_sentences)))


def test_every_id_is_in_the_vocabulary_and_every_class_in_the_charset(arrays):
    for table in (
        arrays.captioned["emoji"].ids,
        arrays.questioned["easy_vqa"].ids,
        arrays.texts.ids,
    ):
        assert table.min() >= 0
        assert table.max() < CONFIG.model.vocab_size
    assert arrays.lines["ocr_lines"].ids.min() >= 1
    assert arrays.lines["ocr_lines"].ids.max() <= CONFIG.model.charset_size
