"""The stem in a cache: its cells are those of the stem that ships, tuned, taught or taken over."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from mmllm.common import tensors
from mmllm.data import pretrained
from mmllm.quant import grid
from mmllm.train import cache, frozen_stem, stages, stem_cache, stem_cells
from tests import tiny_corpora, tiny_stem
from tests.tiny_corpora import CONFIG


@pytest.fixture
def corpora(tmp_path, monkeypatch):
    return tiny_corpora.install(tmp_path, monkeypatch)


@pytest.mark.slow
def test_cells_of_a_tuned_stem_come_from_the_stem_that_ships(corpora, monkeypatch):
    weights = tiny_stem.random_weights(np.random.default_rng(0))
    monkeypatch.setattr(pretrained, "efficientnet_lite0_weights", lambda: weights)
    model = dataclasses.replace(CONFIG.model, stem="efficientnet_lite0", image_side=224)
    tune = dataclasses.replace(CONFIG.tune, steps=2, head_steps=2, batch=2)
    config = dataclasses.replace(CONFIG, model=model, tune=tune)
    folder = cache.prepare(config, lambda line: None)
    stem = frozen_stem.params(config, folder)
    untuned = frozen_stem.pretrained(config)
    assert stem["block_10"] is untuned["block_10"] or same(stem["block_10"], untuned["block_10"])
    assert not same(stem["block_15"], untuned["block_15"])

    arrays = cache.open_arrays(config, folder)
    trunk = np.load(folder / "emoji_trunk_1.npy")
    tail = stem_cells.part_function(stem, tap="7x7x320", entry="14x14x112")
    np.testing.assert_array_equal(arrays.emoji.cells[1][:2], tail(trunk[:2]))
    pixels = stem_cells.picture_view(corpora["composites"][0], 0, np.random.default_rng(0), 224)
    whole = stem_cells.stem_function(config, stem)
    np.testing.assert_array_equal(arrays.composites.cells[0][0], whole(pixels[None])[0])

    def refuse(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(stem_cells, "part_function", refuse)
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
    assert not [name for name in names if "cells" in name]


@pytest.mark.slow
def test_cells_of_a_taught_stem_come_from_its_codes(corpora, tmp_path, monkeypatch):
    weights = tiny_stem.random_weights(np.random.default_rng(0))
    monkeypatch.setattr(pretrained, "efficientnet_lite0_weights", lambda: weights)
    monkeypatch.setattr(stages, "data_seed", lambda config: 0)  # there is no run it starts from
    rules = (r"stem/block_15/project/kernel int2", r"stem/.* float", r"embed/table int8")
    config = dataclasses.replace(
        CONFIG,
        model=dataclasses.replace(CONFIG.model, stem="efficientnet_lite0", image_side=224),
        tune=dataclasses.replace(CONFIG.tune, batch=2),
        quant=dataclasses.replace(CONFIG.quant, start="tiny", rules=rules, stem_steps=2),
    )
    folder = cache.prepare(config, lambda line: None)
    stem = frozen_stem.params(config, folder)
    untuned = frozen_stem.pretrained(config)
    assert same(stem["block_10"], untuned["block_10"])
    assert not same(stem["block_11"], untuned["block_11"])
    scales = frozen_stem.scales(config, folder, stem)["stem"]["block_15"]["project"]["kernel"]
    rounded = frozen_stem.rounded(config, folder, stem)
    codes = np.asarray(rounded["block_15"]["project"]["kernel"]) / np.asarray(scales)
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-5)
    assert set(np.unique(np.round(codes))) <= set(range(grid.GRIDS["int2"].low, 2))
    arrays = cache.open_arrays(config, folder)
    tail = stem_cells.part_function(rounded, tap="7x7x320", entry="14x14x112")
    trunk = np.load(folder / "emoji_trunk_0.npy")
    np.testing.assert_array_equal(arrays.emoji.cells[0][:2], tail(trunk[:2]))
    cache.keep_files(config, folder, tmp_path)
    assert same(frozen_stem.params(config, tmp_path), stem)


def test_a_given_tail_is_kept_and_another_refused(corpora, tmp_path):
    builder = stem_cache.StemBuilder(CONFIG, tmp_path, lambda line: None)
    tail = {"block_15": {"kernel": np.full((2, 2), 0.3, np.float32)}}
    for _ in range(2):
        builder.tail(tail)
    kept = tensors.read(tmp_path / frozen_stem.TUNED, floats=False)["tail"]["block_15"]["kernel"]
    assert kept.dtype == np.float16
    for other in ({"block_15": {"kernel": np.zeros((2, 2), np.float32)}}, {"block_14": {}}):
        with pytest.raises(ValueError, match="is the stem of another run; remove"):
            builder.tail(other)


def test_a_student_s_stem_is_that_of_its_start(corpora, tmp_path, monkeypatch):
    start = tmp_path / "start"
    start.mkdir()
    tail = {"block_15": {"kernel": np.full((2, 2), 0.25, np.float16)}}
    tensors.write(start / frozen_stem.TUNED, {"tail": tail})
    monkeypatch.setattr(stages, "start_folder", lambda config: start)
    quant = dataclasses.replace(CONFIG.quant, start="tiny", rules=("embed/table int8",))
    config = dataclasses.replace(CONFIG, quant=quant)
    tune = dataclasses.replace(CONFIG.tune)
    object.__setattr__(tune, "steps", 5)  # the tiny stem cannot be tuned
    object.__setattr__(config, "tune", tune)
    stem_cache.StemBuilder(config, tmp_path, lambda line: None).tail()
    assert same(tensors.read(tmp_path / frozen_stem.TUNED)["tail"], tail)
    other = {"block_15": {"kernel": np.zeros((2, 2), np.float16)}}
    tensors.write(tmp_path / frozen_stem.TUNED, {"tail": other})
    with pytest.raises(ValueError, match="is the stem of another run; remove"):
        stem_cache.StemBuilder(config, tmp_path, lambda line: None).tail()


@pytest.mark.parametrize("scale", ["learned", "rms"])
def test_what_cannot_be_taught_is_refused_before_anything_is_computed(corpora, tmp_path, scale):
    rules = (rf"stem/block_3/expand/kernel int4 {scale}", r"stem/.* float", r"embed/table int8")
    quant = dataclasses.replace(CONFIG.quant, start="tiny", rules=rules, stem_steps=2)
    model = dataclasses.replace(CONFIG.model, stem="efficientnet_lite0", image_side=224)
    config = dataclasses.replace(CONFIG, model=model, quant=quant)
    with pytest.raises(ValueError, match=r"quant.rules put stem/block_3/expand/kernel there"):
        stem_cache.StemBuilder(config, tmp_path, lambda line: None).tail()
    assert list(tmp_path.iterdir()) == []
