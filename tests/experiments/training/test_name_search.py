"""The rows of the search for names; their measuring needs the training cache."""

from experiments.training import name_search


def test_rows_take_no_more_views_than_the_cache_holds():
    rows = name_search.changes(7)
    assert [row.name for row in rows[:2]] == ["plain", "2 augmented views"]
    assert max(row.views for row in rows) == 7
    assert [row.tuned for row in rows] == [False] * (len(rows) - 1) + [True]
    assert len({row.name for row in rows}) == len(rows)
