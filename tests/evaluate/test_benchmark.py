"""The whole benchmark on corpora in memory: complete, reproducible, and honest about its mode."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmllm.evaluate import benchmark
from mmllm.evaluate.tasks import MEASURES, Model, Row
from mmllm.runtime.model import MobileMultiModalLLM
from tests import tiny_bundle

ROWS = (
    Row("retrieval", "emoji", "style_out", seen_names=400),
    Row("caption", "emoji", "style_out", language="de"),
    Row("lines", "ocr_lines", "unseen_print"),
    Row("vqa", "composites", "test"),
)


@pytest.fixture
def run(corpora: Any, oracle: Any):
    """Returns a function that runs the benchmark on a model with one blind spot."""

    def measured(rows: tuple[Row, ...] = ROWS, **options: Any) -> dict[str, Any]:
        settings: dict[str, Any] = {"corpora": corpora, "report": lambda line: None} | options
        return benchmark.run(oracle(wrong=[3]), rows, **settings)

    return measured


def test_a_result_says_where_it_comes_from(run):
    result = run()
    assert result["kind"] == "benchmark"
    assert result["mode"] == "smoke"
    assert result["model"]["name"] == "oracle"
    assert result["model"]["config_sha256"] == "0" * 64
    assert [data["name"] for data in result["data"]] == ["emoji", "ocr_lines", "composites"]
    assert all(data["hash"] and data["splits"] and data["licences"] for data in result["data"])
    assert {"commit", "dirty"} == result["git"].keys()
    assert {"date", "command", "seeds", "device", "versions", "seconds"} <= result.keys()


def test_every_score_has_unit_size_and_deviation(run, features):
    for row in run(features=features)["rows"]:
        assert row["metrics"]
        assert row["samples"]
        for scores in (row["metrics"], *row["baselines"].values()):
            for score in scores.values():
                assert score.keys() == {"value", "unit", "n", "std"}
                assert score["n"] > 0


def test_the_same_model_gives_the_same_rows(run, features):
    def rows() -> list[dict[str, Any]]:
        return [row | {"seconds": 0} for row in run(features=features)["rows"]]

    assert rows() == rows()


def test_a_result_survives_the_disk(run, tmp_path: Path):
    result = run()
    path = tmp_path / "results" / "oracle.json"
    benchmark.write(result, path)
    assert json.loads(path.read_text()) == result
    assert list(path.parent.iterdir()) == [path]


def test_progress_is_one_line_a_row(run):
    lines: list[str] = []
    run(report=lines.append)
    assert len(lines) == len(ROWS)
    assert lines[3].startswith("vqa/composites/test")
    assert "accuracy 0.750" in lines[3]
    assert not any("\n" in line for line in lines)


def test_a_limit_bounds_pictures_and_names(run):
    result = run(limit=2)
    assert all(row["counts"].get("pictures", 2) <= 2 for row in result["rows"])
    assert result["rows"][0]["counts"]["names"] <= 2
    with pytest.raises(ValueError, match="limit must be at least 1 picture, got 0"):
        run(limit=0)


def test_only_the_whole_benchmark_with_every_baseline_is_full(run, features, monkeypatch):
    monkeypatch.setattr(benchmark, "ROWS", ROWS)
    assert run(features=features)["mode"] == "full"
    assert run()["mode"] == "smoke"
    assert run(features=features, limit=100)["mode"] == "smoke"
    assert run(ROWS[:3], features=features)["mode"] == "smoke"


def test_rows_are_chosen_by_the_start_of_their_name():
    assert benchmark.chosen(ROWS, ["vqa", "lines/ocr"]) == ROWS[2:]
    assert benchmark.chosen(ROWS, []) == ROWS
    with pytest.raises(ValueError, match="no benchmark row starts with 'dance'; rows: retrieval/"):
        benchmark.chosen(ROWS, ["dance"])


def test_missing_corpora_are_named_with_the_remedy(run, corpora):
    corpora.missing = ("composites", "emoji")
    with pytest.raises(FileNotFoundError, match="mmllm data build composites emoji"):
        run()


def test_the_committed_rows_are_distinct_and_measurable():
    names = [row.name for row in benchmark.ROWS]
    assert len(set(names)) == len(names)
    assert {row.task for row in benchmark.ROWS} == set(MEASURES)
    assert {row.split for row in benchmark.ROWS}.isdisjoint({"train", "val"})


def test_features_of_the_training_split_are_stored_below_the_cache(
    run, features, monkeypatch, tmp_path
):
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path))
    run(features=features)
    assert [p.name for p in (tmp_path / "features").iterdir()] == [
        "emoji-train-emojiemojiemojie.npy"
    ]


@pytest.mark.slow
def test_it_runs_on_the_runtime_and_calls_a_random_model_no_better_than_chance(
    corpora: Any, tmp_path: Path
):
    model = MobileMultiModalLLM.from_pretrained(tiny_bundle.make(tmp_path / "tiny"))
    assert isinstance(model, Model)
    result = benchmark.run(model, ROWS, corpora=corpora, limit=2, report=lambda line: None)
    assert result["model"]["config_sha256"] == model.manifest["config_sha256"]
    exact = {row["task"]: row["metrics"].get("exact") for row in result["rows"]}
    assert exact["caption"]["value"] == exact["lines"]["value"] == 0.0
