"""The cache of small corpora in memory: what is in it, and that it survives an interruption."""

import dataclasses
import json

import numpy as np
import pytest

from mmllm.data import pipeline, sources
from mmllm.train import cache, teacher
from mmllm.train import features as features_lib
from tests import tiny_corpora
from tests.tiny_corpora import CONFIG, PICTURES


@pytest.fixture
def corpora(tmp_path, monkeypatch):
    return tiny_corpora.install(tmp_path, monkeypatch)


def prepare(config=CONFIG):
    return cache.prepare(config, lambda line: None)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_prepared_cache_gives_the_arrays_of_training(corpora):
    arrays = cache.open_arrays(CONFIG, prepare())
    grid, channels = CONFIG.model.feature_grid, CONFIG.model.feature_channels
    views = {"emoji": 3, "stamps": 2, "composites": 1}
    for name, count in views.items():
        source = getattr(arrays, name)
        shape = (len(corpora[name]), grid, grid, channels)
        assert [view.shape for view in source.features] == [shape] * count, name
        assert len(source.first) == len(source.label) + 1 == len(source.weight) + 1
    assert arrays.lines.pixels.shape == (2, CONFIG.model.line_height, CONFIG.model.line_width)
    assert arrays.easy_vqa.picture.tolist() == [0, 0]
    batch = next(pipeline.batches(CONFIG, arrays))
    assert batch["features"].shape[0] == CONFIG.mix.pictures


def test_one_name_of_two_pictures_is_one_place_of_the_bank(corpora):
    arrays = cache.open_arrays(CONFIG, prepare())
    assert arrays.emoji.label.tolist() == [0, 1, 2]
    assert arrays.stamps.label.tolist() == [0, 3]  # "BUS" is "bus"
    assert arrays.composites.label.tolist() == [pipeline.NO_LABEL] * PICTURES
    texts = arrays.texts
    # Four names, five German ones, 220 words of the dictionary.
    assert texts.label.tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 3] + [pipeline.NO_LABEL] * 220
    assert texts.weight.tolist() == [1.25] * 4 + [1.0] * 5 + [0.0] * 220
    assert texts.prototype_sentences.shape == (4, 384)
    assert not texts.teacher[:9].any()
    np.testing.assert_allclose(np.linalg.norm(texts.teacher[9:], axis=1), 1.0, atol=1e-2)


def test_a_caption_too_long_is_left_out_and_said(corpora):
    said = []
    folder = cache.prepare(CONFIG, said.append)
    assert "emoji: 1 pictures whose caption is too long left out" in said
    emoji = cache.open_arrays(CONFIG, folder).emoji
    assert emoji.weight.tolist() == [1.0, 1.0, 0.0]
    assert emoji.first.tolist() == [0, 2, 4, 4]


def test_cells_are_those_of_the_plain_picture_first_and_of_augmented_ones_after(corpora):
    arrays = cache.open_arrays(CONFIG, prepare())
    backbone = features_lib.feature_function(CONFIG, None)
    side = CONFIG.model.image_side
    plain = features_lib.picture_view(corpora["emoji"][1], 0, np.random.default_rng(0), side)
    np.testing.assert_array_equal(arrays.emoji.features[0][1], backbone(plain[None])[0])
    assert (arrays.emoji.features[1][1] != arrays.emoji.features[0][1]).any()
    assert (arrays.emoji.features[2][1] != arrays.emoji.features[1][1]).any()


def test_statistics_standardise_the_channels(corpora):
    arrays = cache.open_arrays(CONFIG, prepare())
    affine = features_lib.channel_statistics(arrays.emoji.features[0])
    features = np.asarray(arrays.emoji.features[0], np.float32) * affine["scale"] + affine["bias"]
    np.testing.assert_allclose(features.mean(axis=(0, 1, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose(features.std(axis=(0, 1, 2)), 1.0, atol=1e-2)


def test_the_same_seed_gives_the_same_bytes_and_another_other_views(corpora, tmp_path, monkeypatch):
    first = contents(prepare())
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path / "again"))
    again = contents(prepare())
    arrays = [name for name in first if name.endswith(".npy") or name == cache.TOKENIZER]
    assert first.keys() == again.keys()
    assert all(first[name] == again[name] for name in arrays)
    reseeded = contents(prepare(dataclasses.replace(CONFIG, seed=1)))
    assert reseeded["emoji_features_0.npy"] == first["emoji_features_0.npy"]
    assert reseeded["emoji_features_1.npy"] != first["emoji_features_1.npy"]


def test_a_second_preparation_computes_nothing(corpora, monkeypatch):
    folder = prepare()
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    def refuse(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(features_lib, "feature_function", refuse)
    monkeypatch.setattr(teacher.SentenceTeacher, "load", refuse)
    monkeypatch.setattr(sources, "load", refuse)
    assert prepare() == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_an_interrupted_preparation_leaves_nothing_half_written_and_goes_on(corpora, monkeypatch):
    view = features_lib.picture_view

    def break_off(element, number, rng, side):
        if element is corpora["emoji"][2] and number == 1:
            raise KeyboardInterrupt
        return view(element, number, rng, side)

    with monkeypatch.context() as patch:
        patch.setattr(features_lib, "picture_view", break_off)
        with pytest.raises(KeyboardInterrupt):
            prepare()
    folder = cache.cache_folder(CONFIG)
    left = contents(folder)
    assert "emoji_features_0.npy" in left
    assert not [name for name in left if name == "emoji_features_1.npy" or name.startswith(".")]
    complete = contents(prepare())
    assert complete.keys() - left.keys() == {"emoji_features_1.npy", "emoji_features_2.npy"}
    assert all(complete[name] == data for name, data in left.items())


def test_a_limit_keeps_the_first_pictures_of_each_corpus(corpora):
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, limit=2))
    arrays = cache.open_arrays(config, prepare(config))
    assert len(arrays.emoji.weight) == 2
    assert len(arrays.composites.features[0]) == 2
    assert len(arrays.easy_vqa.features[0]) == 1


def test_the_folder_changes_with_the_corpora_and_the_stem_and_not_with_the_run(
    corpora, monkeypatch
):
    folder = cache.cache_folder(CONFIG)
    longer = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, steps=99))
    assert cache.cache_folder(longer) == folder
    drawn = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, row_tokens=99))
    assert cache.cache_folder(drawn) == folder
    finer = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, patch=4))
    assert cache.cache_folder(finer) != folder
    monkeypatch.setattr(sources, "data_hash", lambda name: f"new hash of {name}")
    assert cache.cache_folder(CONFIG) != folder


def test_missing_corpora_are_named_with_the_command_that_builds_them(corpora, monkeypatch):
    monkeypatch.setattr(sources, "is_built", lambda name: name not in ("stamps", "easy_vqa"))
    with pytest.raises(FileNotFoundError, match="run: mmllm data build stamps easy_vqa"):
        prepare()


def test_a_run_is_bound_to_its_cache(corpora, monkeypatch, tmp_path):
    for _ in range(2):
        cache.claim(CONFIG, tmp_path)
    assert (tmp_path / "cache.txt").read_text() == f"{cache.cache_folder(CONFIG).name}\n"
    monkeypatch.setattr(sources, "data_hash", lambda name: f"new hash of {name}")
    with pytest.raises(ValueError, match=r"holds a run on the cache \w+, the corpora now give \w+"):
        cache.claim(CONFIG, tmp_path)


@pytest.mark.parametrize("steps", [0, 5])
def test_a_run_keeps_what_export_needs(tmp_path, steps):
    config = dataclasses.replace(CONFIG, tune=dataclasses.replace(CONFIG.tune, steps=0))
    object.__setattr__(config.tune, "steps", steps)  # the tiny backbone cannot be tuned
    folder, workdir = tmp_path / "cache", tmp_path / "run"
    for each in (folder, workdir):
        each.mkdir()
    names = ["tokenizer.model", "tuned.safetensors"][: 1 + bool(steps)]
    for name in names:
        (folder / name).write_bytes(name.encode())
    cache.keep_files(config, folder, workdir)
    assert {path.name: path.read_bytes() for path in workdir.iterdir()} == {
        name: name.encode() for name in names
    }


def test_students_of_one_run_share_its_cache_whatever_their_seeds(corpora, tmp_path):
    (tmp_path / "start").mkdir()
    start = dataclasses.asdict(CONFIG) | {"seed": CONFIG.seed}
    (tmp_path / "start" / "config.json").write_text(json.dumps(start))
    quant = dataclasses.replace(
        CONFIG.quant, start=str(tmp_path / "start"), rules=("embed/table int4",)
    )
    for seed in (0, 7):
        student = dataclasses.replace(CONFIG, seed=seed, quant=quant)
        assert cache.cache_folder(student) == cache.cache_folder(CONFIG)
    assert cache.cache_folder(dataclasses.replace(CONFIG, seed=7)) != cache.cache_folder(CONFIG)
