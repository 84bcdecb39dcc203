"""The command measures a tree and keeps one row a label."""

import importlib
import json

import pytest

from experiments.structure import walks
from tests.experiments.structure import houses

command = importlib.import_module("experiments.structure.__main__")


@pytest.fixture
def house(tmp_path, monkeypatch):
    houses.build(tmp_path, {"mmllm/train/a.py": "def f():\n    pass\n", "tests/test_a.py": "\n"})
    way = walks.Leg("picture to caption", "a leg", [("mmllm/train/a.py:f", "")])
    monkeypatch.setattr(walks, "load", lambda version: [way])
    return tmp_path


def test_a_rerun_replaces_the_row_of_its_label(house, tmp_path):
    out = tmp_path / "structure.json"
    for label in ("after", "before", "after"):
        assert command.main([label, "--root", str(house), "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert (result["kind"], result["mode"]) == ("structure", "full")
    assert [row["label"] for row in result["rows"]] == ["before", "after"]
    row = result["rows"][1]
    assert (row["files"], row["lines"], row["test_lines"], row["commit"]) == (1, 2, 1, None)
    assert row["walks"][0]["stops"] == 1


def test_check_tells_the_stop_that_is_wrong(house, capsys, monkeypatch):
    assert command.main(["after", "--root", str(house), "--check"]) == 0
    assert "picture to caption, a leg: 1 stops, 1 files" in capsys.readouterr().out
    gone = walks.Leg("picture to caption", "a leg", [("mmllm/train/a.py:g", "")])
    monkeypatch.setattr(walks, "load", lambda version: [gone])
    assert command.main(["after", "--root", str(house), "--check"]) == 1
    assert "WRONG  picture to caption: no mmllm/train/a.py:g" in capsys.readouterr().out
