import numpy as np
import pytest
from PIL import Image

from mmllm.data import packages
from mmllm.data.synthetic import backgrounds


@pytest.mark.parametrize("pattern", sorted(set(backgrounds._PATTERNS)))
def test_every_pattern_is_a_mix_between_nothing_and_all(pattern):
    for seed in range(5):
        mix = backgrounds._PATTERNS[pattern](np.random.default_rng(seed))
        assert mix.shape == (backgrounds.SIDE, backgrounds.SIDE)
        assert mix.min() >= 0
        assert mix.max() <= 1


def test_training_and_test_patterns_share_nothing():
    train, test = set(backgrounds.TRAIN_PATTERNS), set(backgrounds.TEST_PATTERNS)
    assert not train & test
    assert train | test == set(backgrounds._PATTERNS)


@pytest.mark.parametrize("make", [backgrounds.train_pattern, backgrounds.test_pattern])
def test_grounds_depend_on_the_seed_alone(make):
    one, same, other = (make(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == (224, 224, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_photographs_are_cut_square(monkeypatch, tmp_path):
    path = tmp_path / backgrounds.PHOTO_FOLDER / "Nature" / "lake.jpg"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (480, 360), (10, 120, 200)).save(path)
    monkeypatch.setattr(packages, "fetch", lambda name: tmp_path)
    monkeypatch.setattr(backgrounds, "PHOTOS", ("Nature/lake.jpg",))
    backgrounds._photo.cache_clear()
    pixels = backgrounds.photo(np.random.default_rng(0))
    backgrounds._photo.cache_clear()
    assert pixels.shape == (224, 224, 3)
    assert abs(pixels.astype(int) - (10, 120, 200)).max() <= 3
