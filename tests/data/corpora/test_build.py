import dataclasses
import json

import pytest
import tensorflow_datasets as tfds

from mmllm.data import packages, registry, sources
from mmllm.data.corpora import build
from tests.data.toy_corpus import SIZES, Toy


def quiet(line):
    pass


def test_a_corpus_is_built_read_and_described(toy, tmp_path):
    assert not sources.is_built("toy")
    assert build.describe()[0]["examples"] is None
    assert build.build(["toy"], progress=quiet) == ["toy"]
    (row,) = build.describe()
    assert row["built"]
    assert row["splits"] == SIZES
    assert row["licences"] == {"MIT": 7}
    assert row["hash"] == sources.data_hash("toy")


def test_a_second_build_does_nothing(toy):
    build.build(["toy"], progress=quiet)
    before = sources.folder_of("toy").stat().st_mtime_ns
    lines = []
    assert build.build(["all"], progress=lines.append) == []
    assert lines == ["toy: already built, 7 examples"]
    assert sources.folder_of("toy").stat().st_mtime_ns == before


def test_a_build_of_an_older_version_is_made_anew(toy, monkeypatch):
    build.build(["toy"], progress=quiet)
    older = sources.folder_of("toy")
    monkeypatch.setattr(Toy, "VERSION", tfds.core.Version("9.0.0"))
    assert build.build(["toy"], progress=quiet) == ["toy"]
    assert sources.folder_of("toy").name == "9.0.0" != older.name


def test_two_builds_from_the_same_packages_have_the_same_hash(toy, tmp_path, monkeypatch):
    build.build(["toy"], progress=quiet)
    first = sources.data_hash("toy")
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path / "elsewhere"))
    build.build(["toy"], progress=quiet)
    assert sources.data_hash("toy") == first


def test_every_example_has_its_attribution(toy):
    build.build(["toy"], progress=quiet)
    path = sources.folder_of("toy") / sources.ATTRIBUTION_FILE
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 7
    assert {row["id"] for row in rows} >= {"train/0", "style_out/1"}
    assert all(row["author"] == "Toy stamps" and row["source"] == "toy-stamps 1.0" for row in rows)


def test_a_failed_build_leaves_no_corpus_and_can_be_repeated(toy, monkeypatch):
    monkeypatch.setattr(Toy, "fail", True)
    with pytest.raises(ValueError, match="the disk is full"):
        build.build(["toy"], progress=quiet)
    assert not sources.is_built("toy")
    monkeypatch.setattr(Toy, "fail", False)
    assert build.build(["toy"], progress=quiet) == ["toy"]


def test_a_build_interrupted_before_its_hash_is_repeated(toy):
    build.build(["toy"], progress=quiet)
    (sources.folder_of("toy") / sources.DATA_HASH_FILE).unlink()
    assert not sources.is_built("toy")
    assert build.build(["toy"], progress=quiet) == ["toy"]


def test_a_missing_program_fails_or_is_skipped_on_request(toy, monkeypatch):
    toy.PROGRAMS = ("rsvg-convert-of-nowhere",)
    with pytest.raises(packages.MissingClient, match="'rsvg-convert-of-nowhere' is not on this"):
        build.build(["toy"], progress=quiet)
    lines = []
    assert build.build(["toy"], skip_missing_clients=True, progress=lines.append) == []
    assert lines == ["toy: left out, rsvg-convert-of-nowhere not installed"]


def test_a_builder_of_another_name_is_refused(toy, monkeypatch):
    spec = dataclasses.replace(registry.CORPORA["toy"], name="toys")
    monkeypatch.setattr(registry, "CORPORA", {"toys": spec})
    with pytest.raises(ValueError, match="'toys' has the builder Toy, which tfds calls 'toy'"):
        build.build(["toys"], progress=quiet)


def test_an_unknown_corpus_is_refused_by_name():
    with pytest.raises(ValueError, match="corpus 'coco' is unknown; allowed: emoji, stamps"):
        build.build(["coco"])
