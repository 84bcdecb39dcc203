import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow_datasets")
from mmllm.data import packages, sources  # noqa: E402
from mmllm.data.corpora import build, composites  # noqa: E402


def test_example_n_depends_on_n_alone(toy_studio):
    one, same, other = (composites.record(toy_studio, "train", number) for number in (3, 3, 4))
    assert one["image"].getvalue() == same["image"].getvalue()
    assert one["questions"] == same["questions"]
    assert one["image"].getvalue() != other["image"].getvalue()


def test_a_record_is_complete(toy_studio):
    record = composites.record(toy_studio, "val", 0)
    with Image.open(record["image"]) as picture:
        assert picture.size == (224, 224)
        assert picture.format == "JPEG"
    assert len(record["questions"]) == len(record["answers"]) == len(record["kinds"]) >= 3
    assert record["id"] == "val/0"
    assert record["caption"]
    assert all(build.attribution(record, composites).values())


def test_the_tests_change_artist_ground_and_concept():
    train, test = composites.PLANS["train"], composites.PLANS["test"]
    unseen = composites.PLANS["concept_out"]
    assert {split for _, split in train.corpora} == {"train"}
    assert not train.test_grounds
    assert test.corpora == (("emoji", "style_out"),)
    assert test.fonts == unseen.fonts == "unseen_print"
    assert test.test_grounds
    assert unseen.test_grounds
    assert {split for _, split in unseen.corpora} == {"concept_out"}
    assert not unseen.shapes


def test_sign_words_are_short_lower_case_and_many():
    words = composites.sign_words()
    assert len(words) == len(set(words)) > 180
    assert all(word == word.lower() and word.isalnum() and len(word) <= 8 for word in words)


def test_without_its_sources_the_corpus_says_what_to_build(monkeypatch, tmp_path):
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="mmllm data build emoji"):
        composites.studio_of(composites.PLANS["train"])


def test_the_builder_writes_scenes(toy_studio, monkeypatch, tmp_path):
    plans = {"train": composites.Plan(4, (), "train"), "val": composites.Plan(2, (), "train")}
    monkeypatch.setattr(composites, "PLANS", plans)
    monkeypatch.setattr(composites, "PACKAGES", ())
    monkeypatch.setattr(composites, "studio_of", lambda plan: toy_studio)
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path))
    build.build(["composites"], progress=lambda line: None)
    rows = sources.load("composites", "train")
    assert len(rows) == 4
    assert len(sources.load("composites", "val")) == 2
    assert rows[0]["image"].shape == (224, 224, 3)
    assert rows[0]["image"].dtype == np.uint8
    assert isinstance(rows[0]["questions"], list)
    assert len(rows[0]["questions"]) == len(rows[0]["kinds"])


def test_every_package_of_the_corpus_is_pinned():
    assert set(composites.PACKAGES) <= set(packages.PACKAGES)
