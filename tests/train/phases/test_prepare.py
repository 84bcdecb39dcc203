"""The cache of small corpora in memory: what is in it, and that it survives an interruption."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mmllm.data import pipeline, registry, sources, vocabulary
from mmllm.train.phases import prepare as prepare_lib
from mmllm.train.run import Run
from mmllm.train.text import vocabulary as vocabulary_lib
from tests import tiny_corpora
from tests.tiny_corpora import CONFIG, PICTURES


@pytest.fixture
def corpora(tmp_path, monkeypatch):
    return tiny_corpora.install(tmp_path, monkeypatch)


def prepare(config=CONFIG):
    return prepare_lib.prepare(config, lambda line: None)


def test_one_name_of_two_pictures_is_one_prototype(corpora):
    arrays = tiny_corpora.arrays(CONFIG)
    assert arrays.captioned["emoji"].label.tolist() == [0, 1, 2]
    assert arrays.captioned["stamps"].label.tolist() == [0, 3]  # "BUS" is "bus"
    assert arrays.captioned["composites"].label.tolist() == [pipeline.NO_LABEL] * PICTURES
    texts = arrays.texts
    # Four names, five German ones, 220 words of the dictionary.
    assert texts.label.tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 3] + [pipeline.NO_LABEL] * 220
    assert texts.weight.tolist() == [1.25] * 4 + [1.0] * 5 + [0.0] * 220
    assert texts.prototype_sentences.shape == (4, 384)
    assert texts.teacher.shape == (220, 384)
    np.testing.assert_allclose(np.linalg.norm(texts.teacher, axis=1), 1.0, atol=1e-2)


def test_a_caption_too_long_is_left_out_and_said(corpora):
    said = []
    folder = prepare_lib.prepare(CONFIG, said.append)
    assert "emoji: 1 pictures whose caption is too long left out" in said
    assert folder == prepare_lib.cache_folder(CONFIG)
    emoji = tiny_corpora.arrays(CONFIG).captioned["emoji"]
    assert emoji.weight.tolist() == [1.0, 1.0, 0.0]
    assert emoji.first.tolist() == [0, 2, 4, 4]


def test_the_folder_is_named_by_what_changes_the_tables_and_nothing_else(corpora, monkeypatch):
    vocabulary_lib.make(CONFIG, lambda line: None)
    folder = prepare_lib.cache_folder(CONFIG)

    def folder_with(**sections):
        changes = {
            name: value
            if name in ("seed", "mix")
            else dataclasses.replace(getattr(CONFIG, name), **value)
            for name, value in sections.items()
        }
        return prepare_lib.cache_folder(dataclasses.replace(CONFIG, **changes))

    for same in (
        {"seed": 7},
        {"train": {"steps": 99}},
        {"data": {"row_tokens": 99}},
        {"data": {"views": {"emoji": 1}}},
        {"model": {"patch": 4}},
        {"batch": {"captions": 5}},
        {"mix": {**CONFIG.mix, "emoji": 9.0}},
        {"prototypes": {"negatives": 3}},
    ):
        assert folder_with(**same) == folder, same
    for other in (
        {"data": {"text_tokens": 9}},
        {"data": {"crowded_weight": 0.1}},
        {"model": {"line_height": 16}},
        {"mix": {**CONFIG.mix, "stamps": 0.0}},
        {"prototypes": {"max_residuals": 3}},
    ):
        assert folder_with(**other) != folder, other
    with monkeypatch.context() as patch:
        patch.setattr(prepare_lib, "TABLES_VERSION", prepare_lib.TABLES_VERSION + 1)
        assert prepare_lib.cache_folder(CONFIG) != folder
    monkeypatch.setattr(sources, "data_hash", lambda name: f"new hash of {name}")
    assert prepare_lib.cache_folder(CONFIG) != folder


def test_a_corpus_added_later_leaves_the_vocabulary_as_it_is(corpora, tmp_path):
    few = dataclasses.replace(CONFIG, mix={**CONFIG.mix, "easy_vqa": 0.0})
    said = []
    first = prepare_lib.prepare(few, said.append)
    assert said[0] == "training the vocabulary 'tiny'"
    known = vocabulary.load("tiny", CONFIG.model.vocab_size)
    record = json.loads((tmp_path / "vocabularies" / "tiny" / "vocabulary.json").read_text())
    assert set(record["trained_on"]["corpora"]) == {"emoji", "stamps", "ocr_lines", "composites"}
    said.clear()
    assert prepare_lib.prepare(CONFIG, said.append) != first
    about = [line for line in said if "vocabulary" in line]
    assert about == ["vocabulary 'tiny': trained on other corpora, used as it is"]
    assert vocabulary.load("tiny", CONFIG.model.vocab_size) == known


def test_a_mixture_without_names_has_no_prototypes(corpora):
    nameless = dataclasses.replace(
        CONFIG,
        mix={"composites": 1.0},
        batch=dataclasses.replace(CONFIG.batch, names=0, spoken=0, lines=0, texts=0),
        data=dataclasses.replace(CONFIG.data, vocabulary="nameless"),
    )
    arrays = tiny_corpora.arrays(nameless)
    assert arrays.texts.prototype_sentences.shape == (0, 384)
    batch = next(pipeline.batches(nameless, arrays))
    assert (batch["label"] == pipeline.NO_LABEL).all()


def test_missing_corpora_are_named_with_the_command_that_builds_them(corpora, monkeypatch):
    monkeypatch.setattr(sources, "is_built", lambda name: name not in ("stamps", "easy_vqa"))
    with pytest.raises(FileNotFoundError, match="run: mmllm data build stamps easy_vqa"):
        prepare()


def test_a_corpus_that_cannot_be_validated_on_is_named_with_the_remedy(corpora, monkeypatch):
    """Before anything is computed; a run without validation needs no such split."""
    described = {"emoji": {"train": 3}}
    monkeypatch.setattr(
        sources, "describe", lambda name: {"splits": described.get(name, {"train": 2, "val": 2})}
    )
    train = dataclasses.replace(CONFIG.train, validate_every=5)
    with pytest.raises(ValueError, match=r"'val' in emoji, .*--config\.train\.validate_every=0"):
        tiny_corpora.prepared(dataclasses.replace(CONFIG, train=train))
    run = Run(config=CONFIG, workdir=Path("nowhere"), report=lambda line: None)
    prepare_lib.run(run)
    assert run.tables is not None


def test_a_run_is_bound_to_its_cache(corpora, monkeypatch, tmp_path):
    for _ in range(2):
        prepare_lib.claim(CONFIG, tmp_path)
    assert (tmp_path / "cache.txt").read_text() == f"{prepare_lib.cache_folder(CONFIG).name}\n"
    monkeypatch.setattr(sources, "data_hash", lambda name: f"new hash of {name}")
    with pytest.raises(ValueError, match=r"holds a run on the cache \w+, the corpora now give \w+"):
        prepare_lib.claim(CONFIG, tmp_path)


def test_the_tasks_and_the_order_of_corpora_are_part_of_the_key(corpora, monkeypatch):
    folder = prepare()
    other = dataclasses.replace(registry.CORPORA["composites"], tasks=("caption",))
    for changed in (
        {**registry.CORPORA, "composites": other},
        dict(reversed(registry.CORPORA.items())),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(registry, "CORPORA", changed)
            assert prepare_lib.cache_folder(CONFIG) != folder


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("captions", "has no caption of at most data.decoder_tokens"),
        ("questions", "has no question of at most data.decoder_tokens"),
    ],
)
def test_a_corpus_of_which_nothing_fits_is_named(corpora, what, message):
    # Prompts alone take two tokens, so nothing else fits into three.
    short = dataclasses.replace(CONFIG.data, decoder_tokens=3, name_tokens=3)
    mix = {"emoji": 1.0} if what == "captions" else {"easy_vqa": 1.0}
    config = dataclasses.replace(CONFIG, data=short, mix=mix, batch=asked_for(what))
    with pytest.raises(ValueError, match=f"corpus .* {message}"):
        prepare_lib.prepare(config, lambda line: None)


def asked_for(what):
    nothing = dict.fromkeys(dataclasses.asdict(CONFIG.batch), 0)
    return dataclasses.replace(CONFIG.batch, **{**nothing, what: 4})
