"""The cache of small corpora in memory: what is in it, and that it survives an interruption."""

import dataclasses
import json

import numpy as np
import pytest

from mmllm.data import pipeline, sources
from mmllm.train.phases import prepare as prepare_lib
from tests import tiny_corpora
from tests.tiny_corpora import CONFIG, PICTURES


@pytest.fixture
def corpora(tmp_path, monkeypatch):
    return tiny_corpora.install(tmp_path, monkeypatch)


def prepare(config=CONFIG):
    return prepare_lib.prepare(config, lambda line: None)


def test_one_name_of_two_pictures_is_one_place_of_the_bank(corpora):
    arrays = tiny_corpora.arrays(CONFIG)
    assert arrays.captioned["emoji"].label.tolist() == [0, 1, 2]
    assert arrays.captioned["stamps"].label.tolist() == [0, 3]  # "BUS" is "bus"
    assert arrays.captioned["composites"].label.tolist() == [pipeline.NO_LABEL] * PICTURES
    texts = arrays.texts
    # Four names, five German ones, 220 words of the dictionary.
    assert texts.label.tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 3] + [pipeline.NO_LABEL] * 220
    assert texts.weight.tolist() == [1.25] * 4 + [1.0] * 5 + [0.0] * 220
    assert texts.prototype_sentences.shape == (4, 384)
    assert not texts.teacher[:9].any()
    np.testing.assert_allclose(np.linalg.norm(texts.teacher[9:], axis=1), 1.0, atol=1e-2)


def test_a_caption_too_long_is_left_out_and_said(corpora):
    said = []
    folder = prepare_lib.prepare(CONFIG, said.append)
    assert "emoji: 1 pictures whose caption is too long left out" in said
    assert folder == prepare_lib.cache_folder(CONFIG)
    emoji = tiny_corpora.arrays(CONFIG).captioned["emoji"]
    assert emoji.weight.tolist() == [1.0, 1.0, 0.0]
    assert emoji.first.tolist() == [0, 2, 4, 4]


def test_the_folder_changes_with_the_corpora_and_the_stem_and_not_with_the_run(
    corpora, monkeypatch
):
    folder = prepare_lib.cache_folder(CONFIG)
    longer = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, steps=99))
    assert prepare_lib.cache_folder(longer) == folder
    drawn = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, row_tokens=99))
    assert prepare_lib.cache_folder(drawn) == folder
    finer = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, patch=4))
    assert prepare_lib.cache_folder(finer) != folder
    monkeypatch.setattr(sources, "data_hash", lambda name: f"new hash of {name}")
    assert prepare_lib.cache_folder(CONFIG) != folder


def test_missing_corpora_are_named_with_the_command_that_builds_them(corpora, monkeypatch):
    monkeypatch.setattr(sources, "is_built", lambda name: name not in ("stamps", "easy_vqa"))
    with pytest.raises(FileNotFoundError, match="run: mmllm data build stamps easy_vqa"):
        prepare()


def test_a_run_is_bound_to_its_cache(corpora, monkeypatch, tmp_path):
    for _ in range(2):
        prepare_lib.claim(CONFIG, tmp_path)
    assert (tmp_path / "cache.txt").read_text() == f"{prepare_lib.cache_folder(CONFIG).name}\n"
    monkeypatch.setattr(sources, "data_hash", lambda name: f"new hash of {name}")
    with pytest.raises(ValueError, match=r"holds a run on the cache \w+, the corpora now give \w+"):
        prepare_lib.claim(CONFIG, tmp_path)


def test_students_of_one_run_share_its_cache_whatever_their_seeds(corpora, tmp_path):
    (tmp_path / "start").mkdir()
    start = dataclasses.asdict(CONFIG) | {"seed": CONFIG.seed}
    (tmp_path / "start" / "config.json").write_text(json.dumps(start))
    quant = dataclasses.replace(
        CONFIG.quant, start=str(tmp_path / "start"), rules=("embed/table int4",)
    )
    for seed in (0, 7):
        student = dataclasses.replace(CONFIG, seed=seed, quant=quant)
        assert prepare_lib.cache_folder(student) == prepare_lib.cache_folder(CONFIG)
    assert prepare_lib.cache_folder(
        dataclasses.replace(CONFIG, seed=7)
    ) != prepare_lib.cache_folder(CONFIG)
