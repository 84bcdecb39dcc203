"""Scores in words: numbers as people write them, dashes for what was not measured."""

from typing import Any

import pytest

from mmllm.evaluate import benchmark, scores


def score(value: float, unit: str = "share", std: float = 0.01) -> dict[str, Any]:
    return {"value": value, "unit": unit, "n": 7, "std": std}


def row(
    task: str, metrics: dict[str, Any], baselines: dict[str, Any], **fields: Any
) -> dict[str, Any]:
    fields = {"corpus": "emoji", "split": "style_out", "language": "en", "counts": {}} | fields
    language = "" if fields["language"] == "en" else f"/{fields['language']}"
    name = f"{task}/{fields['corpus']}/{fields['split']}{language}"
    return {"name": name, "task": task, "metrics": metrics, "baselines": baselines, **fields}


EASY = {"corpus": "easy_vqa", "split": "test"}
RESULT = {
    "kind": "benchmark",
    "date": "2026-01-01",
    "model": {"tensor_classes": {"decoder": {"parameters": 3000, "bytes": 6000}}},
    "data": [{"name": "emoji", "hash": "ab", "splits": {"train": 8000}, "licences": {"MIT": 2}}],
    "rows": [
        row(
            "lines",
            {"cer": score(0.0625)},
            {"chance": {"cer": score(0.9)}, "silence": {"cer": score(1.0)}},
            corpus="ocr_lines",
            split="unseen_print",
        ),
        row("caption", {"exact": score(0.61)}, {}, language="de"),
        row(
            "retrieval",
            {"image_to_text_r1": score(0.75)},
            {
                "nearest": {"image_to_text_r1": score(0.46)},
                "chance": {"image_to_text_r1": score(0.1)},
            },
            counts={"names": 400},
        ),
        row("vqa", {"accuracy": score(1.0), "accuracy:count": score(0.5)}, {}, **EASY),
    ],
}


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (score(0.7254), ".725"),
        (score(1.0), "1.000"),
        (score(0.0), ".000"),
        (score(1.2345, "points"), "1.23"),
        (None, scores.DASH),
        ({"value": None, "unit": "share", "n": 0, "std": None}, scores.DASH),
    ],
)
def test_numbers(given: dict[str, Any] | None, written: str):
    assert scores.number(given) == written


def test_numbers_with_deviation():
    assert scores.number(score(0.7254, std=0.0123), with_std=True) == ".725 ± .012"
    assert scores.number(score(1.25, "points", std=0.034), with_std=True) == "1.25 ± .03"


def test_the_best_baseline_of_an_error_rate_is_the_lowest():
    lines, search = RESULT["rows"][0], RESULT["rows"][2]
    assert scores.best_baseline(lines, "cer") == ("chance", score(0.9))
    assert scores.best_baseline(search, "image_to_text_r1") == ("nearest", score(0.46))
    assert scores.best_baseline(RESULT["rows"][1], "exact") is None


def test_every_headline_is_a_row_of_the_benchmark():
    assert set(scores.HEADLINES) <= {row.name for row in benchmark.ROWS}
