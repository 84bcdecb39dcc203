"""Tables of the benchmark, from results made by hand."""

from typing import Any

import pytest

from experiments.tables import benchmark as tables
from mmllm.evaluate import benchmark, scores
from tests.evaluate.test_scores import RESULT, row, score


def measured(
    name: str, engine: str, r1: float, exact: float, cer: float, accuracy: float
) -> dict[str, Any]:
    rows = [
        row("retrieval", {"image_to_text_r1": score(r1)}, {}, counts={"names": 400}),
        row("caption", {"exact": score(exact)}, {}),
        row("lines", {"cer": score(cer)}, {}, corpus="ocr_lines", split="unseen_print"),
        row("vqa", {"accuracy": score(accuracy)}, {}, corpus="composites", split="test"),
    ]
    model = {"name": name, "engine": engine, "files": {"weights": "0f"}}
    return {"kind": "benchmark", "model": model, "rows": rows}


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


def test_the_newest_benchmark_counts():
    newer = RESULT | {"date": "2026-02-01"}
    other = {"kind": "ablation", "date": "2026-03-01"}
    assert tables.latest_benchmark([RESULT, newer, other]) is newer


def test_the_retention_is_the_mean_of_that_of_each_task():
    results = [
        measured("nano_float", "jax", 0.5, 0.4, 0.2, 0.5),
        measured("nano", "litert", 0.4, 0.4, 0.2, 0.5),
        measured("nano", "jax", 0.1, 0.1, 0.1, 0.1),
    ]
    table = tables.retention_table(results)
    assert "| search | image→text R@1, unseen artists | 0.500 | 0.400 | 80.0% |" in table
    assert "| reading | 1 - CER, unseen print fonts, noisy | 0.800 | 0.800 | 100.0% |" in table
    assert (
        table.splitlines()[-1]
        == "| **mean** | of the scores; of the retentions | **0.550** | **0.525** | **95.0%** |"
    )


def test_the_engines_stand_side_by_side_and_may_not_lie_apart():
    lite = measured("nano", "litert", 0.5, 0.4, 0.2, 0.5)
    table = tables.engines_table([lite, measured("nano", "jax", 0.51, 0.4, 0.2, 0.5)])
    lines = table.splitlines()[2:]
    assert len(lines) == 4
    assert lines[0].endswith("| .500 ± .010 | .510 ± .010 | -0.010 |")
    other = measured("nano", "jax", 0.1, 0.1, 0.1, 0.1)
    other["model"]["files"] = {"weights": "another"}
    assert len(tables.engines_table([lite, other]).splitlines()) == 3  # a row of dashes
    with pytest.raises(ValueError, match="exact of caption.* is 0.4 through LiteRT and 0.43"):
        tables.engines_table([lite, measured("nano", "jax", 0.5, 0.43, 0.2, 0.5)])


def test_a_task_is_a_row_of_the_benchmark():
    names = {each.name for each in benchmark.ROWS}
    assert {name for name, _ in tables.TASKS.values()} <= names


def test_scores_of_a_tree_with_local_changes_are_signed():
    dirty = RESULT | {"marks": ["local changes"]}
    assert tables.scores_table([dirty]).startswith("| task † |")
    assert "\n†: measured with local changes" in tables.main_table([dirty])
    assert "†" not in tables.scores_table([RESULT])


def test_parts_have_the_names_of_today():
    assert tables.named("pretrained stem") == "pretrained backbone"
    assert tables.named("stem/block_11") == "backbone/block_11"
    assert tables.named("backbone/stem") == "backbone/stem"


@pytest.mark.parametrize("name", tables.TABLES)
def test_without_results_a_table_is_one_row_of_dashes(name: str):
    header, rule, *rows = tables.TABLES[name]([]).splitlines()
    assert rule == "|---" * (header.count("|") - 1) + "|"
    assert rows == ["| " + " | ".join([scores.DASH] * (header.count("|") - 1)) + " |"]
