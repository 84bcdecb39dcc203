"""Views of pictures: in order, the same whatever the threads, and features of any batch size."""

import numpy as np
import pytest

from mmllm.data import images
from mmllm.train.backbone import features as features_lib
from tests import tiny_run

SIDE = tiny_run.CONFIG.model.image_side
KEY = (0, 1, 2)


def drawings(count, channels=4, caption="bus"):
    rng = np.random.default_rng(0)
    return [
        {
            "image": rng.integers(0, 256, (30, 40, channels), np.uint8),
            "languages": ["en"],
            "captions": [caption],
        }
        for _ in range(count)
    ]


def views(source, view):
    return list(features_lib.view_batches(source, view, KEY, SIDE, "drawing"))


def test_features_of_the_patch_backbone_are_scaled_pixels():
    pixels = np.full((1, SIDE, SIDE, 3), 192, np.uint8)
    pixels[0, :8, :8] = 64  # the first patch
    features = features_lib.feature_function(tiny_run.CONFIG, None)(pixels)
    assert features.dtype == np.float16
    assert features.shape == (1, 4, 4, 192)
    np.testing.assert_array_equal(features[0, 0, 0], -1.0)
    np.testing.assert_array_equal(features[0, 1:], 1.0)


def test_batches_come_in_order_and_the_last_may_be_short(monkeypatch):
    monkeypatch.setattr(features_lib, "BATCH", 2)
    source = drawings(13)
    batches = views(source, 0)
    assert [start for start, _ in batches] == [0, 2, 4, 6, 8, 10, 12]
    assert [len(pixels) for _, pixels in batches] == [2] * 6 + [1]
    for start, pixels in batches:
        np.testing.assert_array_equal(pixels[0], images.to_square(source[start]["image"], SIDE))


def test_views_are_the_same_whatever_threads_and_batches(monkeypatch):
    source = drawings(7)
    expected = views(source, 1)[0][1]
    monkeypatch.setattr(features_lib, "THREADS", 1)
    monkeypatch.setattr(features_lib, "BATCH", 3)
    again = np.concatenate([pixels for _, pixels in views(source, 1)])
    np.testing.assert_array_equal(expected, again)


def test_no_pictures_give_no_batch():
    assert views([], 0) == []


def test_an_error_in_a_thread_reaches_the_caller():
    with pytest.raises(KeyError, match="image"):
        views([{}], 0)
