"""The structure of the code before and after, as a table: what docs/architecture.md shows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmllm.evaluate import scores

LABELS = ("before", "after")
WALKS = ("picture to caption", "config field to effect", "trained weight to packed byte")


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """A row a figure, a column a version; a dash where there is no figure yet."""
    found = [result for result in results if result["kind"] == "structure"]
    rows = {row["label"]: row for row in found[-1]["rows"]} if found else {}
    return scores.markdown(
        ("what a reader meets", *LABELS),
        [
            (what, *(_cell(rows[label], of) if label in rows else scores.DASH for label in LABELS))
            for what, of in FIGURES.items()
        ],
    )


def _cell(row: Mapping[str, Any], of: Callable[[Mapping[str, Any]], Any]) -> str:
    value = of(row)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _comment_share(row: Mapping[str, Any]) -> str:
    """Of the package alone: configs are tables, in which each line has its comment."""
    sums = [
        counts for folder, counts in row["comments"].items() if folder.partition("/")[0] == "mmllm"
    ]
    share = sum(each["comment"] for each in sums) / sum(each["code"] for each in sums)
    return f"{100 * share:.1f} %"


def _longest(row: Mapping[str, Any]) -> str:
    most = max(row["folders"], key=lambda folder: folder["longest_lines"])
    return f"`{most['longest'].removeprefix('mmllm/')}`, {most['longest_lines']}"


def _crowded(row: Mapping[str, Any]) -> str:
    files = {folder["folder"]: folder["files"] for folder in row["folders"]}
    named = [f"`{name.removeprefix('mmllm/')}` {files[name]}" for name in row["crowded"]]
    return ", ".join(named) or "none"


def _walked(walk: str) -> Callable[[Mapping[str, Any]], str]:
    def of(row: Mapping[str, Any]) -> str:
        legs = [leg for leg in row["walks"] if leg["walk"] == walk]
        stops = sum(leg["stops"] for leg in legs)
        climbs, returns = (sum(len(leg[key]) for leg in legs) for key in ("climbs", "returns"))
        return f"{stops} stops, {climbs} climbs, {returns} returns" if legs else scores.DASH

    return of


def _readers(row: Mapping[str, Any]) -> str:
    legs = [leg for leg in row["walks"] if leg["field"]]
    return ", ".join(f"`{leg['field']}` {len(leg['readers'])}" for leg in legs)


FIGURES: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "files": lambda row: row["files"],
    "lines": lambda row: row["lines"],
    "folders of more than 15 files": _crowded,
    "longest file, lines": _longest,
    "comments, of the lines of code in `mmllm/`": _comment_share,
    "public functions, classes and constants": lambda row: sum(
        count for kind, count in row["public_names"].items() if kind != "methods"
    ),
    "lines in `train/` with a number that no config knows": lambda row: len(
        row["numbers"]["train"]
    ),
    "the same for constants of `data/` and `models/`": lambda row: sum(
        len(row["numbers"][room]) for room in ("data", "models")
    ),
    "pairs of places that share six lines or more": lambda row: len(row["copies"]),
    "functions that take a gradient": lambda row: len(row["repeated"]["gradients"]),
    "functions that build an Adam": lambda row: len(row["repeated"]["optimizers"]),
    **{f"walk from {walk}": _walked(walk) for walk in WALKS},
    "files that read a field": _readers,
}
