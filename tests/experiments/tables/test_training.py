"""Tables about training, from results made by hand."""

import pytest

from experiments.tables import training as tables
from mmllm.evaluate import scores
from tests.evaluate.test_scores import RESULT, score


def test_what_the_search_for_names_gains():
    names = ("image_to_text_r1", "image_to_text_r5", "text_to_image_r1")
    metrics = {f"style_out/{name}": score(0.5) for name in names}
    metrics["concept_out/image_to_text_r1"] = score(0.5)
    result = {
        "kind": "name_search",
        "date": "2026-01-01",
        "rows": [{"row": "plain pictures only", "pictures": 8000, "metrics": metrics}],
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
    assert rows == ["| " + " | ".join([scores.DASH] * (header.count("|") - 1)) + " |"]
