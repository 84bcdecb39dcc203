"""Features of small corpora in memory: what is cached, and that it survives an interruption."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from mmllm.data import pipeline, pretrained, registry, sources, transforms
from mmllm.quant import grid
from mmllm.train.backbone import blocks as backbone_lib
from mmllm.train.backbone import feature_cache
from mmllm.train.backbone import features as features_lib
from mmllm.train.phases import cache_features, prepare
from mmllm.train.student import start
from mmllm.train.text import teacher
from tests import tiny_backbone, tiny_corpora
from tests.tiny_corpora import CONFIG


@pytest.fixture
def corpora(tmp_path, monkeypatch):
    return tiny_corpora.install(tmp_path, monkeypatch)


def contents(config=CONFIG):
    """The files of a config's features, by corpus and view."""
    tables = prepare.cache_folder(config)
    return {
        f"{corpus} {path.stem}": path.read_bytes()
        for corpus in registry.pictured(config)
        for path in sorted(feature_cache.folder(config, tables, corpus).iterdir())
        if not path.name.startswith(".")
    }


def same(one, other):
    return all(
        np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)
    )


def test_prepared_corpora_give_the_arrays_of_training(corpora):
    arrays = tiny_corpora.arrays()
    side, channels = CONFIG.model.feature_grid, CONFIG.model.feature_channels
    for name, count in {"emoji": 3, "stamps": 2, "composites": 1}.items():
        source = arrays.captioned[name]
        shape = (len(corpora[name]), side, side, channels)
        assert [view.shape for view in source.features] == [shape] * count, name
        assert len(source.first) == len(source.label) + 1 == len(source.weight) + 1
    assert arrays.lines["ocr_lines"].pixels.shape == (
        2,
        CONFIG.model.line_height,
        CONFIG.model.line_width,
    )
    assert arrays.questioned["easy_vqa"].picture.tolist() == [0, 0]
    batch = next(pipeline.batches(CONFIG, arrays))
    assert batch["features"].shape[0] == CONFIG.batch.pictures


def test_features_are_those_of_the_plain_picture_first_and_of_augmented_ones_after(corpora):
    emoji = tiny_corpora.arrays().captioned["emoji"]
    backbone = features_lib.feature_function(CONFIG, None)
    side = CONFIG.model.image_side
    element, rng = corpora["emoji"][1], np.random.default_rng(0)
    plain = transforms.picture_view(element, 0, rng, side, "drawing")
    np.testing.assert_array_equal(emoji.features[0][1], backbone(plain[None])[0])
    assert (emoji.features[1][1] != emoji.features[0][1]).any()
    assert (emoji.features[2][1] != emoji.features[1][1]).any()


def test_statistics_standardise_the_channels(corpora):
    features = tiny_corpora.arrays().captioned["emoji"].features[0]
    affine = features_lib.channel_statistics(features, CONFIG.train.statistics_pictures)
    features = np.asarray(features, np.float32) * affine["scale"] + affine["bias"]
    np.testing.assert_allclose(features.mean(axis=(0, 1, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose(features.std(axis=(0, 1, 2)), 1.0, atol=1e-2)


def test_the_same_seed_gives_the_same_bytes_and_another_other_views(corpora, tmp_path, monkeypatch):
    tiny_corpora.arrays()
    first = contents()
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path / "again"))
    tiny_corpora.arrays()
    assert first == contents()
    reseeded = dataclasses.replace(CONFIG, seed=1)
    tiny_corpora.arrays(reseeded)
    assert contents(reseeded)["emoji view_0"] == first["emoji view_0"]
    assert contents(reseeded)["emoji view_1"] != first["emoji view_1"]


def test_a_second_preparation_computes_nothing(corpora, tmp_path, monkeypatch):
    tiny_corpora.arrays()

    def times():
        found = (path for path in tmp_path.rglob("*") if path.is_file())
        return {path: path.stat().st_mtime_ns for path in found}

    before = times()

    def refuse(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(features_lib, "feature_function", refuse)
    monkeypatch.setattr(teacher.SentenceTeacher, "load", refuse)
    monkeypatch.setattr(sources, "load", refuse)
    tiny_corpora.arrays()
    assert times() == before


def test_an_interruption_leaves_nothing_half_written_and_goes_on(corpora, monkeypatch):
    view = transforms.picture_view

    def break_off(element, number, rng, side, augmentation):
        if element is corpora["emoji"][2] and number == 1:
            raise KeyboardInterrupt
        return view(element, number, rng, side, augmentation)

    with monkeypatch.context() as patch:
        patch.setattr(transforms, "picture_view", break_off)
        with pytest.raises(KeyboardInterrupt):
            tiny_corpora.arrays()
    tables = prepare.cache_folder(CONFIG)
    folder = feature_cache.folder(CONFIG, tables, "emoji")
    left = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(left) == {"view_0.npy"}
    tiny_corpora.arrays()
    complete = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(complete) == {"view_0.npy", "view_1.npy", "view_2.npy"}
    assert complete["view_0.npy"] == left["view_0.npy"]


def test_a_limit_keeps_the_first_pictures_of_each_corpus(corpora):
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, limit=2))
    arrays = tiny_corpora.arrays(config)
    assert len(arrays.captioned["emoji"].weight) == 2
    assert len(arrays.captioned["composites"].features[0]) == 2
    assert len(arrays.questioned["easy_vqa"].features[0]) == 1


def test_a_run_that_validates_opens_the_plain_view_of_its_val_splits(corpora):
    train = dataclasses.replace(CONFIG.train, validate_every=5, validation_pictures=2)
    run = tiny_corpora.prepared(dataclasses.replace(CONFIG, train=train))
    unseen = run.validation
    assert [len(each.features) for each in unseen.captioned.values()] == [1, 1, 1]
    assert [len(each.weight) for each in unseen.captioned.values()] == [2, 2, 2]
    assert len(unseen.texts.prototype_sentences) == 3  # captions of their own
    assert len(unseen.texts.teacher) == len(run.arrays.texts.teacher)  # and the same words
    words = [texts.ids[texts.label < 0] for texts in (unseen.texts, run.arrays.texts)]
    np.testing.assert_array_equal(*words)
    batch = next(pipeline.batches(run.config, unseen))
    assert batch.keys() == next(pipeline.batches(run.config, run.arrays)).keys()
    assert tiny_corpora.prepared(CONFIG).validation is None


def test_a_full_disk_is_refused_before_features_are_written(corpora, tmp_path, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="needs 0 MB, 0 MB are free; free space and run again"):
        tiny_corpora.arrays()
    assert list(tmp_path.rglob("view_*.npy")) == []


@pytest.fixture
def untuned(monkeypatch):
    weights = tiny_backbone.random_weights(np.random.default_rng(0))
    monkeypatch.setattr(pretrained, "efficientnet_lite0_weights", lambda: weights)


MODEL = dataclasses.replace(CONFIG.model, backbone="efficientnet_lite0", image_side=224)


@pytest.mark.slow
def test_features_of_a_tuned_backbone_come_from_the_one_that_ships(
    corpora, untuned, tmp_path, monkeypatch
):
    tune = dataclasses.replace(CONFIG.tune, steps=2, head_steps=2, batch=2)
    config = dataclasses.replace(CONFIG, model=MODEL, tune=tune)
    run = tiny_corpora.prepared(config)
    folder = feature_cache.backbone_folder(config, run.tables)
    backbone, before = backbone_lib.params(config, folder), backbone_lib.pretrained(config)
    assert same(backbone["block_10"], before["block_10"])
    assert not same(backbone["block_15"], before["block_15"])

    frozen = feature_cache.opened(feature_cache.frozen_folder(config, "emoji"), 1)[1]
    blocks = features_lib.part_function(backbone, level="7x7x320", entry="14x14x112")
    np.testing.assert_array_equal(run.arrays.captioned["emoji"].features[1][:2], blocks(frozen[:2]))
    element, rng = corpora["composites"][0], np.random.default_rng(0)
    pixels = transforms.picture_view(element, 0, rng, 224, "scene")
    whole = features_lib.feature_function(config, backbone)
    np.testing.assert_array_equal(
        run.arrays.captioned["composites"].features[0][0], whole(pixels[None])[0]
    )
    cache_features.keep_blocks(config, run.tables, tmp_path)
    assert same(backbone_lib.params(config, tmp_path), backbone)

    def refuse(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(features_lib, "part_function", refuse)
    assert tiny_corpora.prepared(config).tables == run.tables


@pytest.mark.slow
def test_features_of_reconstructed_blocks_come_from_their_codes(
    corpora, untuned, tmp_path, monkeypatch
):
    monkeypatch.setattr(start, "data_seed", lambda config: 0)  # there is no run it starts from
    rules = (r"backbone/block_15/project/kernel int2", r"backbone/.* float", r"embed/table int8")
    reconstruction = dataclasses.replace(CONFIG.quant.reconstruction, steps=2, batch=2)
    quant = dataclasses.replace(
        CONFIG.quant, start="tiny", rules=rules, reconstruction=reconstruction
    )
    config = dataclasses.replace(CONFIG, model=MODEL, quant=quant)
    run = tiny_corpora.prepared(config)
    folder = feature_cache.backbone_folder(config, run.tables)
    backbone, before = backbone_lib.params(config, folder), backbone_lib.pretrained(config)
    assert same(backbone["block_10"], before["block_10"])
    assert not same(backbone["block_11"], before["block_11"])
    scales = backbone_lib.scales(config, folder, backbone)["backbone"]
    rounded = backbone_lib.rounded(config, folder, backbone)
    kernel, scale = (each["block_15"]["project"]["kernel"] for each in (rounded, scales))
    codes = np.asarray(kernel) / np.asarray(scale)
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-5)
    assert set(np.unique(np.round(codes))) <= set(range(grid.GRIDS["int2"].low, 2))
    blocks = features_lib.part_function(rounded, level="7x7x320", entry="14x14x112")
    frozen = feature_cache.opened(feature_cache.frozen_folder(config, "emoji"), 0)[0]
    np.testing.assert_array_equal(run.arrays.captioned["emoji"].features[0][:2], blocks(frozen[:2]))
    cache_features.keep_blocks(config, run.tables, tmp_path)
    assert same(backbone_lib.params(config, tmp_path), backbone)


@pytest.mark.parametrize("scale", ["learned", "rms"])
def test_what_cannot_be_reconstructed_is_refused_before_anything_is_computed(
    corpora, tmp_path, scale
):
    rules = (
        rf"backbone/block_3/expand/kernel int4 {scale}",
        r"backbone/.* float",
        r"embed/table int8",
    )
    reconstruction = dataclasses.replace(CONFIG.quant.reconstruction, steps=2)
    quant = dataclasses.replace(
        CONFIG.quant, start="tiny", rules=rules, reconstruction=reconstruction
    )
    config = dataclasses.replace(CONFIG, model=MODEL, quant=quant)
    with pytest.raises(ValueError, match=r"quant.rules put backbone/block_3/expand/kernel there"):
        tiny_corpora.prepared(config)
    assert list(tmp_path.iterdir()) == []
