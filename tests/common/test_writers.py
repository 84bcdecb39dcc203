"""metrics.jsonl: a line a step, resumed without repeats, whole after a crash."""

import json
import sys

import pytest

from mmllm.common import writers


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def write(workdir, steps, resume_step=0):
    writer = writers.MetricsWriter(workdir, resume_step)
    for step in steps:
        writer.write(step, {"loss": step / 3})
    writer.close()


def test_a_row_holds_the_step_the_time_and_six_digits(tmp_path):
    write(tmp_path / "run", [1])
    (row,) = rows(tmp_path / "run")
    assert row.pop("time") > 0
    assert row == {"step": 1, "loss": 0.333333}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_becomes_null(tmp_path, value):
    writer = writers.MetricsWriter(tmp_path)
    writer.write(1, {"loss": value})
    writer.close()
    assert rows(tmp_path)[0]["loss"] is None


def test_a_row_is_readable_as_soon_as_it_is_written(tmp_path):
    writer = writers.MetricsWriter(tmp_path)
    writer.write(1, {})
    assert len(rows(tmp_path)) == 1
    writer.close()


def test_a_resumed_run_drops_the_steps_it_takes_again(tmp_path):
    write(tmp_path, [1, 2, 3, 4])
    write(tmp_path, [3, 4, 5], resume_step=2)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5]


def test_a_run_from_the_start_begins_an_empty_file(tmp_path):
    write(tmp_path, [1, 2])
    write(tmp_path, [1])
    assert [row["step"] for row in rows(tmp_path)] == [1]


def test_a_last_row_that_a_killed_run_left_half_written_is_dropped(tmp_path):
    write(tmp_path, [1, 2])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    write(tmp_path, [3], resume_step=3)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3]


def test_a_broken_row_in_the_middle_is_named(tmp_path):
    write(tmp_path, [1])
    path = tmp_path / "metrics.jsonl"
    path.write_text("{broken\n" + path.read_text())
    with pytest.raises(ValueError, match="metrics.jsonl, line 1, is not JSON .*--workdir"):
        writers.MetricsWriter(tmp_path, 1)


def test_tensorboard_without_clu_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "clu", None)
    with pytest.raises(ImportError, match=r"--tensorboard needs clu.*pip install 'mmllm\[train\]'"):
        writers.MetricsWriter(tmp_path, tensorboard=True)
