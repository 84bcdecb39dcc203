"""`mmllm export`: writes a bundle and says what it wrote; failures take one line."""

import json

import pytest

from mmllm.evaluate import tables
from mmllm.export import bundle
from tests import tiny_run


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


def test_json_gives_the_manifest_and_scores_come_from_a_result(
    command, run_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(tables, "manifest_scores", lambda result: {"lines/CER": result["cer"]})
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
    for arguments, words in (
        ((tmp_path / "nothing", tmp_path / "b"), "no training run at"),
        ((run_folder, taken), "exists and is no bundle"),
        ((run_folder, tmp_path / "b", "--scores", damaged), "scores.json"),
        ((run_folder, tmp_path / "b", "--scores", tmp_path / "none.json"), "none.json"),
    ):
        code, out, err = command("export", *arguments, model=False)
        assert (code, out) == (1, "")
        assert err.count("\n") == 1
        assert words in err
    assert not (tmp_path / "b").exists()
    assert (taken / "letter.txt").read_text() == "mine"
