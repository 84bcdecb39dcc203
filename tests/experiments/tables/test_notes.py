"""Signs of doubtful rows, and what stands below a table about them."""

from experiments.tables import notes

GOOD, DIRTY, STALE = {"marks": []}, {"marks": ["local changes"]}, {"stale": True}


def test_a_cell_carries_the_signs_of_any_of_its_rows():
    assert notes.signed("int2", GOOD) == "int2"
    assert notes.signed("int2", GOOD, DIRTY) == "int2 †"
    assert notes.signed("int2", STALE, DIRTY) == "int2 † (stale)"


def test_each_sign_is_explained_once_and_apart_from_the_table():
    assert notes.footnotes([GOOD]) == ""
    text = notes.footnotes([DIRTY, DIRTY, STALE])
    assert text.startswith("\n†: ")
    assert text.count("†") == text.count("stale:") == 1


def test_rows_of_a_kind_come_from_all_its_files():
    results = [{"kind": "a", "rows": [{"row": 1, "date": "2"}, {"row": 2, "date": "1"}]}]
    results += [{"kind": "b", "rows": [{"row": 3, "date": "3"}]}, {"kind": "a", "rows": []}]
    assert [row["row"] for row in notes.rows_of(results, "a")] == [1, 2]
    newest = notes.newest(results, "a")
    assert newest is not None
    assert newest["row"] == 1
    assert notes.newest(results, "c") is None


def test_a_table_about_one_measurement_carries_its_sign_in_the_header():
    assert notes.noted(("a", "b"), [], None).startswith("| a | b |")
    assert notes.noted(("a", "b"), [], STALE).startswith("| a (stale) | b |")
