"""What a table says of rows that nobody can measure again as they are, or that are out of date."""

from collections.abc import Iterable, Sequence

from mmllm.evaluate import scores
from mmllm.evaluate.scores import Result

MARK, STALE = "†", "stale"
NOTES = {
    MARK: "measured with local changes, or from a source or a start that is not on record",
    STALE: "the row's config is another one today, is gone, or is not on record",
}


def rows_of(results: Sequence[Result], kind: str) -> list[Result]:
    """The rows of a kind of result, in the order of their files; none where there is none."""
    return [row for result in results if result["kind"] == kind for row in result["rows"]]


def newest(results: Sequence[Result], kind: str) -> Result | None:
    """The row of a kind that was measured last; None where there is none."""
    return max(rows_of(results, kind), key=lambda row: row["date"], default=None)


def signed(text: str, *rows: Result) -> str:
    """A cell about some rows, with the sign of what is to be said of any of them."""
    signs = _signs(rows)
    dagger = f" {MARK}" if MARK in signs else ""
    return f"{text}{dagger}{f' ({STALE})' if STALE in signs else ''}"


def footnotes(rows: Iterable[Result]) -> str:
    """Lines below a table for the signs in it; "" where there is none."""
    # A line right below a table would count as one of its rows.
    return "".join(f"\n{sign}: {NOTES[sign]}.\n" for sign in _signs(rows))


def noted(header: Sequence[str], rows: Sequence[Sequence[str]], *measured: Result | None) -> str:
    """A table with what is to be said of the measurements behind it."""
    if any(measured):
        header = (signed(header[0], *filter(None, measured)), *header[1:])
    return scores.markdown(header, rows) + footnotes(filter(None, measured))


def _signs(rows: Iterable[Result]) -> list[str]:
    rows = list(rows)
    found = {MARK: any(row.get("marks") for row in rows)}
    found[STALE] = any(row.get("stale") for row in rows)
    return [sign for sign, holds in found.items() if holds]
