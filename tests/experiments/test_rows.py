"""Rows of results: a rerun takes its row's place, and only a config that changed is stale."""

import dataclasses
import json
from typing import Any

import pytest

from experiments import rows as rows_lib
from experiments.rows import Row
from mmllm.common import config as config_lib

CLEAN = {"git": {"commit": "ab", "dirty": False}, "date": "2026-01-01"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    steps: int
    rate: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy:
    """The config of an experiment that does nothing."""

    name: str
    inner: Inner


@dataclasses.dataclass(frozen=True, kw_only=True)
class Newer(Toy):
    """The same with a field that came later."""

    share: float = 1.0


TOY = Toy(name="toy", inner=Inner(steps=3, rate=0.5))


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Values by dotted name -> sections."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        *sections, last = name.split(".")
        place = found
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return found


@pytest.fixture
def written(tmp_path, monkeypatch) -> Any:
    """Returns a function that writes a row and returns the whole result."""
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(rows_lib, "RESULTS", tmp_path)

    def write(row: Row, **fields: Any) -> dict[str, Any]:
        rows_lib.write("toy", row, {**CLEAN, **fields})
        return rows_lib.read("toy")

    return write


def test_a_rerun_takes_the_place_of_its_row_and_of_no_other(written):
    row = Row(name="a", seed=0, start="b", config=TOY)
    others = [dataclasses.replace(row, start=None), dataclasses.replace(row, seed=1)]
    for place, each in enumerate([row, *others, row]):
        result = written(each, value=place)
    found = [(each["seed"], each["start"], each["value"]) for each in result["rows"]]
    assert found == [(0, None, 1), (1, "b", 2), (0, "b", 3)]


def test_a_row_is_finished_with_its_config_and_start_only(written):
    row = Row(name="a", seed=0, start="b", config=TOY)
    found = written(row)["rows"]
    assert rows_lib.is_finished(row, found)
    other = dataclasses.replace(TOY, name="other")
    for change in ({"name": "c"}, {"seed": 1}, {"start": "c"}, {"config": other}):
        assert not rows_lib.is_finished(dataclasses.replace(row, **change), found)


def test_a_row_that_starts_from_nothing_has_no_start():
    assert Row(name="a", config=TOY).key == {"row": "a"}
    assert Row(name="a", seed=1, start=None, config=TOY).key == {
        "row": "a",
        "seed": 1,
        "start": None,
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (CLEAN, []),
        ({"git": {"commit": "ab", "dirty": True}}, ["local changes"]),
        ({"git": {"commit": None, "dirty": None}}, ["unknown source"]),
        ({**CLEAN, "start": None}, ["unknown start"]),
        ({"start": None}, ["unknown source", "unknown start"]),
        ({**CLEAN, "start": "ab"}, []),
    ],
)
def test_what_nobody_can_measure_again_is_marked(fields, expected):
    assert rows_lib.marks(fields) == expected


def test_a_config_stands_in_the_file_as_its_differences_from_the_first(written):
    written(Row(name="a", config=TOY))
    changed = dataclasses.replace(TOY, inner=Inner(steps=4, rate=0.5))
    result = written(Row(name="b", config=changed))
    assert [row["config"] for row in result["rows"]] == [{}, {"inner.steps": 4}]
    for row, config in zip(result["rows"], (TOY, changed), strict=True):
        whole = rows_lib.stored_config(result, row)
        assert whole == rows_lib.flat(config_lib.to_dict(config))


def test_a_row_is_stale_where_its_config_changed_or_is_gone(written):
    result = written(Row(name="a", config=TOY))
    row = result["rows"][0]
    assert not rows_lib.is_stale(result, row, TOY)
    assert rows_lib.is_stale(result, row, None)
    assert rows_lib.is_stale(result, row, dataclasses.replace(TOY, inner=Inner(steps=4, rate=0.5)))


def test_a_new_field_at_its_default_makes_nothing_stale(written):
    result = written(Row(name="a", config=TOY))
    row = result["rows"][0]
    assert not rows_lib.is_stale(result, row, Newer(name="toy", inner=TOY.inner))
    assert rows_lib.is_stale(result, row, Newer(name="toy", inner=TOY.inner, share=0.5))


def test_a_field_that_was_renamed_makes_nothing_stale(written, monkeypatch):
    result = written(Row(name="a", config=TOY))
    result["base"]["inner.count"] = result["base"].pop("inner.steps")
    row = {**result["rows"][0], "config_sha256": "that of the old names"}
    assert rows_lib.is_stale(result, row, TOY)
    monkeypatch.setitem(config_lib.RENAMED, "inner.count", "inner.steps")
    assert not rows_lib.is_stale(result, row, TOY)


def test_a_field_that_only_the_base_has_is_absent_from_the_row(written):
    written(Row(name="a", config=Newer(name="toy", inner=TOY.inner, share=0.5)))
    result = written(Row(name="b", config=TOY))
    assert result["rows"][1]["config"] == {"share": rows_lib.ABSENT}
    assert not rows_lib.is_stale(result, result["rows"][1], TOY)


def test_a_row_whose_config_is_not_on_record_is_stale():
    row = {"row": "a", "config_sha256": "ab"}
    assert rows_lib.is_stale({"rows": [row]}, row, TOY)


def test_a_result_is_written_whole_or_not_at_all(written, tmp_path):
    written(Row(name="a", config=TOY))
    before = (tmp_path / "toy.json").read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        written(Row(name="b", config=TOY), value=object())
    assert (tmp_path / "toy.json").read_bytes() == before


def test_the_committed_rows_say_what_their_digests_say():
    for path in sorted(rows_lib.RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        if "base" not in result:
            continue
        keys = [rows_lib.key_of(row) for row in result["rows"]]
        assert len(set(keys)) == len(keys), path.name
        for row in result["rows"]:
            assert row["marks"] == rows_lib.marks(row), (path.name, row["row"])
            if "config" in row:
                whole = nested(rows_lib.stored_config(result, row) or {})
                assert config_lib.stored_sha256(whole) == row["config_sha256"], row["row"]
