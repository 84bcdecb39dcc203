"""`mmllm bench`: arguments go where they should; the measuring is tested with `mmllm.evaluate`."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmllm.evaluate import baselines, benchmark, report


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []

    def run(model: Any, rows: Any, **options: Any) -> dict[str, Any]:
        calls.append({"rows": rows, **options})
        options["report"]("caption/emoji  0.5")
        return {"rows": []}

    monkeypatch.setattr(benchmark, "run", run)
    monkeypatch.setattr(baselines, "backbone_features", lambda: lambda pictures: ["features"])
    monkeypatch.setattr(
        report, "write_report", lambda result, folder, losses: [folder / "report.md"]
    )
    return calls


def test_everything_is_measured_by_default(command, calls, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command("bench")
    assert done.code == 0
    assert "caption/emoji" in done.out
    assert json.loads(Path("report/results.json").read_text()) == {"rows": []}
    assert calls[0]["rows"] == benchmark.ROWS
    assert calls[0]["limit"] is None
    assert calls[0]["features"]([]) == ["features"]


def test_rows_and_limit_can_be_chosen(command, calls, tmp_path: Path):
    out = tmp_path / "results.json"
    chosen = ("--tasks", "lines", "vqa/easy_vqa", "--limit", 5, "--no-neighbours", "--json")
    done = command("bench", "--out", out, "--report", tmp_path, *chosen)
    assert done.code == 0
    assert json.loads(done.out) == json.loads(out.read_text()) == {"rows": []}
    assert "caption/emoji" in done.err
    assert {row.task for row in calls[0]["rows"]} == {"lines", "vqa"}
    assert (calls[0]["limit"], calls[0]["features"]) == (5, None)


def test_wrong_requests_take_one_line(command, calls, tmp_path: Path):
    for arguments, reason in (
        (("--tasks", "dance"), "'dance'"),
        (("--losses", tmp_path / "none"), "no training log"),
    ):
        done = command("bench", *arguments)
        assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 1)
        assert reason in done.err
    assert calls == []
