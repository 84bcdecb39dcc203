"""Tables of results: numbers as people write them, dashes for what was not measured."""

from typing import Any

import pytest

from mmllm.evaluate import benchmark, tables


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
        (None, tables.DASH),
        ({"value": None, "unit": "share", "n": 0, "std": None}, tables.DASH),
    ],
)
def test_numbers(given: dict[str, Any] | None, written: str):
    assert tables.number(given) == written


def test_numbers_with_deviation():
    assert tables.number(score(0.7254, std=0.0123), with_std=True) == ".725 ± .012"
    assert tables.number(score(1.25, "points", std=0.034), with_std=True) == "1.25 ± .03"


def test_the_best_baseline_of_an_error_rate_is_the_lowest():
    lines, search = RESULT["rows"][0], RESULT["rows"][2]
    assert tables.best_baseline(lines, "cer") == ("chance", score(0.9))
    assert tables.best_baseline(search, "image_to_text_r1") == ("nearest", score(0.46))
    assert tables.best_baseline(RESULT["rows"][1], "exact") is None


def test_the_short_table():
    assert tables.scores_table([RESULT]).splitlines()[2:] == [
        "| read a line: CER ↓ | ocr_lines, unseen print fonts, noisy | **.062** | .900 chance |",
        "| caption: exact match | emoji, unseen artists, de | **.610** | — |",
        "| search among 400 names: image→text R@1 | emoji, unseen artists | **.750** "
        "| .460 nearest |",
        "| answer: VQA accuracy | easy_vqa, test | **1.000** | — |",
    ]


def test_the_long_table_has_every_metric():
    lines = tables.main_table([RESULT]).splitlines()
    assert lines[0] == "| task | test | metric | model | baseline | n |"
    assert lines[-1] == "| answer | easy_vqa, test | VQA accuracy, count | .500 ± .010 | — | 7 |"
    assert len(lines) == 2 + 5


def test_data_and_parameters():
    assert tables.data_table([RESULT]).splitlines()[-1] == "| emoji | train | 8,000 | MIT |"
    assert tables.parameters_table([RESULT]).splitlines()[2:] == [
        "| decoder | 3,000 | 6,000 |",
        "| **all** | **3,000** | **6,000** |",
    ]


def test_licences_stand_once_and_many_are_counted():
    data = {
        "name": "composites",
        "splits": {"train": 12, "test": 3},
        "licences": {"MIT AND CC0-1.0": 9, "MIT": 3, "CC0-1.0 OR OFL-1.1": 3},
    }
    written = tables.data_table([RESULT | {"data": [data]}]).splitlines()[2:]
    assert written == [
        "| composites | train | 12 | CC0-1.0, MIT, OFL-1.1 |",
        "| composites | test | 3 | CC0-1.0, MIT, OFL-1.1 |",
    ]
    data["licences"] = {f"LicenseRef-{n}": 1 for n in range(9)}
    written = tables.data_table([RESULT | {"data": [data]}]).splitlines()[2:]
    assert written[0].endswith("| 9 free licences, see attribution.jsonl |")


def test_what_the_search_for_names_gains():
    names = ("image_to_text_r1", "image_to_text_r5", "text_to_image_r1")
    metrics = {f"style_out/{name}": score(0.5) for name in names}
    metrics["concept_out/image_to_text_r1"] = score(0.5)
    result = {
        "kind": "name_search",
        "date": "2026-01-01",
        "rows": [{"name": "plain pictures only", "pictures": 8000, "metrics": metrics}],
    }
    written = tables.name_search_table([RESULT, result]).splitlines()[2:]
    assert written == ["| plain pictures only | 8,000 |" + " .500 ± .010 |" * 4]


def test_where_the_model_loses():
    row = RESULT["rows"][0] | {"task": "caption", "part": "vector of the true name"}
    row["metrics"] = {"exact": score(0.5), "bleu4": score(0.1)}
    result = {"kind": "limits", "date": "2026-01-01", "rows": [row]}
    written = tables.limits_table([RESULT, result]).splitlines()[2:]
    assert len(written) == 1
    assert written[0].endswith("| vector of the true name | exact match | .500 ± .010 | 7 |")


@pytest.mark.parametrize("name", tables.TABLES)
def test_without_results_a_table_is_one_row_of_dashes(name: str):
    header, rule, *rows = tables.TABLES[name]([]).splitlines()
    assert rule == "|---" * (header.count("|") - 1) + "|"
    assert rows == ["| " + " | ".join([tables.DASH] * (header.count("|") - 1)) + " |"]


def test_the_newest_benchmark_counts():
    newer = RESULT | {"date": "2026-02-01"}
    other = {"kind": "ablation", "date": "2026-03-01"}
    assert tables.latest_benchmark([RESULT, newer, other]) is newer


def test_every_headline_is_a_row_of_the_benchmark():
    assert set(tables.HEADLINES) <= {row.name for row in benchmark.ROWS}
