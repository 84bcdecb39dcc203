"""`mmllm export`: writes a bundle and says what it wrote; failures take one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmllm import bundle
from mmllm.evaluate import scores
from mmllm.export.targets.litert import flatbuffer, target
from mmllm.parity import report as parity
from tests import tiny_run
from tests.export.targets.litert.test_flatbuffer import model_of
from tests.parity.test_report import RIGHT, changed


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    tiny_run.pretend_built(monkeypatch)
    tiny_run.make(tmp_path / "run")
    return tmp_path / "run"


def test_a_run_becomes_a_bundle(command, run_folder, tmp_path):
    code, out, err = command("export", run_folder, tmp_path / "bundle", model=False)
    assert (code, err) == (0, "")
    manifest = bundle.load(tmp_path / "bundle").manifest
    assert out.startswith(f"written: {tmp_path / 'bundle'} ({manifest['parameters']:,} parameters")


def test_an_unfinished_run_is_exported_only_when_that_is_said(command, tmp_path, monkeypatch):
    tiny_run.pretend_built(monkeypatch)
    tiny_run.make(tmp_path / "run", step=3)
    arguments = "export", tmp_path / "run", tmp_path / "bundle"
    code, _, err = command(*arguments, model=False)
    assert code == 1
    assert "stands at step 3 of 20" in err
    assert len(err.splitlines()) == 1
    assert command(*arguments, "--unfinished", model=False).code == 0


def test_json_gives_the_manifest_and_scores_come_from_a_result(
    command, run_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(scores, "manifest_scores", lambda result: {"lines/CER": result["cer"]})
    results = tmp_path / "results.json"
    results.write_text('{"cer": 0.25}')
    code, out, _ = command(
        "export", run_folder, tmp_path / "b", "--scores", results, "--json", model=False
    )
    assert code == 0
    printed = json.loads(out)
    assert printed["folder"] == str(tmp_path / "b")
    assert printed["scores"] == {"lines/CER": 0.25}


def test_failures_take_one_line_and_write_nothing(command, run_folder, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "letter.txt").write_text("mine")
    damaged = tmp_path / "scores.json"
    damaged.write_text("{")
    empty = tmp_path / "empty.json"
    empty.write_text('{"rows": []}')
    other = tmp_path / "other.json"
    other.write_text('{"name": "nano"}')
    for arguments, words in (
        ((tmp_path / "nothing", tmp_path / "b"), "no training run at"),
        ((run_folder, taken), "exists and is no bundle"),
        ((run_folder, tmp_path / "b", "--scores", damaged), "scores.json"),
        ((run_folder, tmp_path / "b", "--scores", empty), "none of the headline scores"),
        ((run_folder, tmp_path / "b", "--scores", other), "is no result of `mmllm bench`"),
        ((run_folder, tmp_path / "b", "--scores", tmp_path / "none.json"), "none.json"),
    ):
        code, out, err = command("export", *arguments, model=False)
        assert (code, out) == (1, "")
        assert err.count("\n") == 1
        assert words in err
    assert not (tmp_path / "b").exists()
    assert (taken / "letter.txt").read_text() == "mine"


def test_a_bundle_gets_its_litert_file_and_its_bytes_are_shown(
    command, bundle_folder, tmp_path, monkeypatch
):
    folder = tmp_path / "tiny"
    shutil.copytree(bundle_folder, folder)

    def written(folder, exported):
        # A file of the schema without an operation: what converts is looked at in test_target.
        (folder / bundle.LITERT).write_bytes(flatbuffer.write(model_of("ADD", np.eye(4))))
        return folder / bundle.LITERT

    monkeypatch.setattr(target, "export", written)
    monkeypatch.setattr(parity, "measure", lambda *_: RIGHT)
    report = tmp_path / "report"
    arguments = ("export", folder, "--to", "litert", "--report", report)
    code, out, err = command(*arguments, model=False)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == ["part", "type", "numbers", "MB"]
    assert f"written: {folder / bundle.LITERT}" in out
    assert f"written: {report / 'parity.json'}, {report / 'parity.md'}" in out
    manifest, _ = bundle.open_verified(folder)
    assert bundle.LITERT in manifest["files"]


def test_a_file_that_differs_from_jax_leaves_the_bundle_as_it_was_and_a_report(
    command, bundle_folder, tmp_path, monkeypatch
):
    folder = tmp_path / "tiny"
    shutil.copytree(bundle_folder, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    wrong = changed("layers", 0, median=0.5)
    monkeypatch.setattr(parity, "measure", lambda *_: wrong)
    monkeypatch.setattr(
        target,
        "export",
        lambda folder, *_: Path(shutil.copy(folder / bundle.TOKENIZER, folder / "m")),
    )
    monkeypatch.setattr(target, "budget", lambda _: {"bytes": 0, "limit": 1, "rows": []})
    arguments = ("export", folder, "--to", "litert", "--report", tmp_path / "report")
    code, out, err = command(*arguments, model=False)
    assert (code, out) == (1, "")
    assert "layer encoder/block_0: LiteRT differs from JAX by 0.5 of the norm" in err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert json.loads((tmp_path / "report" / "parity.json").read_text()) == wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run",), "BUNDLE must be given"),
        (("bundle", "elsewhere", "--to", "litert"), "--to takes one folder"),
        (("run", "bundle", "--report", "there"), "--report goes with --to"),
    ],
)
def test_arguments_that_do_not_go_together_are_wrong_usage(command, arguments, message):
    code, out, err = command("export", *arguments, model=False)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_what_an_export_needs_is_looked_at_before_it_converts(
    command, bundle_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(target, "export", lambda *_: pytest.fail("converted"))
    file = tmp_path / "file"
    file.touch()
    for folder, report, message in (
        (tmp_path / "none", tmp_path / "report", "no model bundle at"),
        (bundle_folder, file, "File exists"),
        (bundle_folder, file / "x", "Not a directory"),
    ):
        arguments = ("export", folder, "--to", "litert", "--report", report)
        code, out, err = command(*arguments, model=False)
        assert (code, out) == (1, "")
        assert message in err
        assert len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
