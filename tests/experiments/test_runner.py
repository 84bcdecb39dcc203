"""The runner skips what is finished, measures the rest and says where each figure comes from."""

import pytest

from experiments import rows as rows_lib
from experiments import runner
from experiments.rows import Row
from tests.experiments.test_rows import TOY

ROWS = [Row(name=name, seed=0, config=TOY) for name in "abc"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Returns the folder that results go to."""
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(rows_lib, "RESULTS", tmp_path)
    return tmp_path


def test_a_row_holds_its_figures_and_where_they_come_from(folder):
    runner.run("toy", ROWS[:1], lambda row: {"value": row.name})
    assert [path.name for path in folder.glob("*.json")] == ["toy.json"]
    result = rows_lib.read("toy")
    (row,) = result["rows"]
    assert (result["kind"], result["mode"], row["value"]) == ("toy", "full", "a")
    assert {"date", "command", "git", "device", "versions", "seconds", "marks"} <= set(row)


def test_a_stopped_run_goes_on_with_what_is_missing():
    def broken(row: Row) -> dict[str, str]:
        if row.name == "b":
            raise RuntimeError("power cut")
        return {"value": row.name}

    with pytest.raises(RuntimeError, match="power cut"):
        runner.run("toy", ROWS, broken, resume=True)
    measured = []
    runner.run("toy", ROWS, lambda row: {"value": measured.append(row.name)}, resume=True)
    assert measured == ["b", "c"]
    assert [row["row"] for row in rows_lib.read("toy")["rows"]] == ["a", "b", "c"]


def test_without_resume_a_row_is_measured_anew():
    for value in (1, 2):
        runner.run("toy", ROWS[:1], lambda row, value=value: {"value": value})
    assert [row["value"] for row in rows_lib.read("toy")["rows"]] == [2]


def test_a_smoke_run_writes_nothing(folder):
    runner.run("toy", ROWS, lambda row: {}, smoke=True)
    assert not list(folder.glob("*.json"))


def test_after_each_row_the_whole_result_is_there():
    seen = []
    runner.run("toy", ROWS, lambda row: {}, after=lambda result: seen.append(len(result["rows"])))
    assert seen == [1, 2, 3]


def test_rows_are_chosen_by_name(capsys):
    parser = runner.parser("Measures. More.\n\nEven more.", ["a", "b"])
    assert parser.parse_args([]).rows == ["a", "b"]
    assert parser.parse_args(["--rows", "b", "--smoke"]).rows == ["b"]
    assert runner.parser("Measures.", resumes=True).parse_args(["--again"]).again
    with pytest.raises(SystemExit):
        parser.parse_args(["--rows", "c"])
    assert "invalid choice: 'c'" in capsys.readouterr().err
