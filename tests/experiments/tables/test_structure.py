"""The table of the structure: a column a version, a dash where nothing is measured."""

import json

from experiments.structure.__main__ import RESULT
from experiments.tables import structure


def test_without_a_result_every_figure_is_a_dash():
    lines = structure.table([]).splitlines()
    assert lines[0] == "| what a reader meets | before | after |"
    assert all(line.endswith("| — | — |") for line in lines[2:])


def test_the_committed_result_fills_its_columns():
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    before = next(row for row in result["rows"] if row["label"] == "before")
    table = structure.table([result])
    assert f"| files | {before['files']:,} |" in table
    legs = [leg for leg in before["walks"] if leg["walk"] == "config field to effect"]
    stops, climbs = sum(leg["stops"] for leg in legs), sum(len(leg["climbs"]) for leg in legs)
    assert f"| walk from config field to effect | {stops} stops, {climbs} climbs, " in table
