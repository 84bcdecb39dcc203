"""The backbone in a cache: its features are those of the backbone that ships, tuned, taught or taken over."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from mmllm.common import tensors
from mmllm.data import pretrained
from mmllm.quant import grid
from mmllm.train import backbone as backbone_lib
from mmllm.train import cache, feature_cache, stages
from mmllm.train import features as features_lib
from tests import tiny_backbone, tiny_corpora
from tests.tiny_corpora import CONFIG


@pytest.fixture
def corpora(tmp_path, monkeypatch):
    return tiny_corpora.install(tmp_path, monkeypatch)


@pytest.mark.slow
def test_cells_of_a_tuned_stem_come_from_the_stem_that_ships(corpora, monkeypatch):
    weights = tiny_backbone.random_weights(np.random.default_rng(0))
    monkeypatch.setattr(pretrained, "efficientnet_lite0_weights", lambda: weights)
    model = dataclasses.replace(CONFIG.model, backbone="efficientnet_lite0", image_side=224)
    tune = dataclasses.replace(CONFIG.tune, steps=2, head_steps=2, batch=2)
    config = dataclasses.replace(CONFIG, model=model, tune=tune)
    folder = cache.prepare(config, lambda line: None)
    backbone = backbone_lib.params(config, folder)
    untuned = backbone_lib.pretrained(config)
    assert backbone["block_10"] is untuned["block_10"] or same(
        backbone["block_10"], untuned["block_10"]
    )
    assert not same(backbone["block_15"], untuned["block_15"])

    arrays = cache.open_arrays(config, folder)
    frozen = np.load(folder / "emoji_frozen_1.npy")
    trainable = features_lib.part_function(backbone, level="7x7x320", entry="14x14x112")
    np.testing.assert_array_equal(arrays.emoji.features[1][:2], trainable(frozen[:2]))
    pixels = features_lib.picture_view(corpora["composites"][0], 0, np.random.default_rng(0), 224)
    whole = features_lib.feature_function(config, backbone)
    np.testing.assert_array_equal(arrays.composites.features[0][0], whole(pixels[None])[0])

    def refuse(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(features_lib, "part_function", refuse)
    assert cache.prepare(config, lambda line: None) == folder


def same(one, other):
    return all(
        np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)
    )


def test_a_full_disk_is_refused_before_cells_are_written(corpora, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="needs 0 MB, 0 MB are free; free space and run again"):
        cache.prepare(CONFIG, lambda line: None)
    names = [path.name for path in cache.cache_folder(CONFIG).iterdir()]
    assert not [name for name in names if "features" in name]


@pytest.mark.slow
def test_cells_of_a_taught_stem_come_from_its_codes(corpora, tmp_path, monkeypatch):
    weights = tiny_backbone.random_weights(np.random.default_rng(0))
    monkeypatch.setattr(pretrained, "efficientnet_lite0_weights", lambda: weights)
    monkeypatch.setattr(stages, "data_seed", lambda config: 0)  # there is no run it starts from
    rules = (r"backbone/block_15/project/kernel int2", r"backbone/.* float", r"embed/table int8")
    config = dataclasses.replace(
        CONFIG,
        model=dataclasses.replace(CONFIG.model, backbone="efficientnet_lite0", image_side=224),
        tune=dataclasses.replace(CONFIG.tune, batch=2),
        quant=dataclasses.replace(CONFIG.quant, start="tiny", rules=rules, backbone_steps=2),
    )
    folder = cache.prepare(config, lambda line: None)
    backbone = backbone_lib.params(config, folder)
    untuned = backbone_lib.pretrained(config)
    assert same(backbone["block_10"], untuned["block_10"])
    assert not same(backbone["block_11"], untuned["block_11"])
    scales = backbone_lib.scales(config, folder, backbone)["backbone"]["block_15"]["project"][
        "kernel"
    ]
    rounded = backbone_lib.rounded(config, folder, backbone)
    codes = np.asarray(rounded["block_15"]["project"]["kernel"]) / np.asarray(scales)
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-5)
    assert set(np.unique(np.round(codes))) <= set(range(grid.GRIDS["int2"].low, 2))
    arrays = cache.open_arrays(config, folder)
    trainable = features_lib.part_function(rounded, level="7x7x320", entry="14x14x112")
    frozen = np.load(folder / "emoji_frozen_0.npy")
    np.testing.assert_array_equal(arrays.emoji.features[0][:2], trainable(frozen[:2]))
    cache.keep_files(config, folder, tmp_path)
    assert same(backbone_lib.params(config, tmp_path), backbone)


def test_a_given_tail_is_kept_and_another_refused(corpora, tmp_path):
    builder = feature_cache.FeatureCache(CONFIG, tmp_path, lambda line: None)
    trainable = {"block_15": {"kernel": np.full((2, 2), 0.3, np.float32)}}
    for _ in range(2):
        builder.trainable(trainable)
    kept = tensors.read(tmp_path / backbone_lib.TUNED, floats=False)["trainable"]["block_15"][
        "kernel"
    ]
    assert kept.dtype == np.float16
    for other in ({"block_15": {"kernel": np.zeros((2, 2), np.float32)}}, {"block_14": {}}):
        with pytest.raises(ValueError, match="is the backbone of another run; remove"):
            builder.trainable(other)


def test_a_student_s_stem_is_that_of_its_start(corpora, tmp_path, monkeypatch):
    start = tmp_path / "start"
    start.mkdir()
    trainable = {"block_15": {"kernel": np.full((2, 2), 0.25, np.float16)}}
    tensors.write(start / backbone_lib.TUNED, {"trainable": trainable})
    monkeypatch.setattr(stages, "start_folder", lambda config: start)
    quant = dataclasses.replace(CONFIG.quant, start="tiny", rules=("embed/table int8",))
    config = dataclasses.replace(CONFIG, quant=quant)
    tune = dataclasses.replace(CONFIG.tune)
    object.__setattr__(tune, "steps", 5)  # the tiny backbone cannot be tuned
    object.__setattr__(config, "tune", tune)
    feature_cache.FeatureCache(config, tmp_path, lambda line: None).trainable()
    assert same(tensors.read(tmp_path / backbone_lib.TUNED)["trainable"], trainable)
    other = {"block_15": {"kernel": np.zeros((2, 2), np.float16)}}
    tensors.write(tmp_path / backbone_lib.TUNED, {"trainable": other})
    with pytest.raises(ValueError, match="is the backbone of another run; remove"):
        feature_cache.FeatureCache(config, tmp_path, lambda line: None).trainable()


@pytest.mark.parametrize("scale", ["learned", "rms"])
def test_what_cannot_be_taught_is_refused_before_anything_is_computed(corpora, tmp_path, scale):
    rules = (
        rf"backbone/block_3/expand/kernel int4 {scale}",
        r"backbone/.* float",
        r"embed/table int8",
    )
    quant = dataclasses.replace(CONFIG.quant, start="tiny", rules=rules, backbone_steps=2)
    model = dataclasses.replace(CONFIG.model, backbone="efficientnet_lite0", image_side=224)
    config = dataclasses.replace(CONFIG, model=model, quant=quant)
    with pytest.raises(ValueError, match=r"quant.rules put backbone/block_3/expand/kernel there"):
        feature_cache.FeatureCache(config, tmp_path, lambda line: None).trainable()
    assert list(tmp_path.iterdir()) == []
