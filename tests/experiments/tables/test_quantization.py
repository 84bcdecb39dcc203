"""The table of the ablation: runs joined, rows without a label shown, signs of what is doubtful."""

from typing import Any

from experiments.tables import quantization
from experiments.tables.benchmark import TASKS
from tests.evaluate.test_scores import score


def trained(name: str, start: str | None, value: float, **fields: Any) -> dict[str, Any]:
    scores = {key: score(value) for key, _ in TASKS.values()}
    row = {"row": name, "start": start, "bytes": 4_860_000, "scores": scores, "average": value}
    return row | fields


def table(*rows: dict[str, Any]) -> list[str]:
    lines = quantization.quantization_table([{"kind": "quantization", "rows": rows}]).splitlines()
    return lines[2:]


def test_rows_of_one_model_are_joined_and_compared_with_their_own_starts():
    first, second, third = table(
        trained("int2", None, 0.5),
        trained("int2", "b", 0.7),
        trained("float_start", None, 1.0),
        trained("float_start", "b", 0.875),
        trained("half_int4", "c", 0.6),
    )
    assert first.startswith("| float | the model that all others start from | 4.86 | .938 ± .088 |")
    assert first.endswith("| 100.0% | 2 |")
    assert second.endswith("| .600 ± .141 | 65.0% | 2 |")
    assert third.endswith("| .600 | — | 1 |")


def test_a_measured_row_without_a_label_is_shown_by_its_name():
    known, unknown = table(trained("int2", "b", 0.5), trained("int3", "b", 0.25))
    assert known.startswith("| 2 | trained with distillation |")
    assert unknown.startswith("| — | int3 | 4.86 | .250 |")


def test_what_is_doubtful_is_signed_and_explained():
    one, other, *notes = table(
        trained("int4", "b", 0.5, marks=["local changes"]), trained("int2", "b", 0.5, stale=True)
    )
    assert one.startswith("| 4 | trained with distillation † |")
    assert other.startswith("| 2 | trained with distillation (stale) |")
    assert [line.split(":")[0] for line in notes if line] == ["†", "stale"]
