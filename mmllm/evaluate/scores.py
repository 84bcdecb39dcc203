"""Scores of a benchmark in words: headlines, baselines beside them, numbers as people write them.

Stands after `mmllm.evaluate.benchmark`; reports and the tables of the documents are made of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

DASH = "—"

SPLITS = {
    "style_out": "unseen artists",
    "concept_out": "unseen names",
    "style_concept_out": "unseen artists and names",
    "photo_out": "photographs",
    "unseen_print": "unseen print fonts, noisy",
    "unseen_print_clean": "unseen print fonts, clean",
    "unseen_script": "unseen script fonts",
    "test": "test",
}
TITLES = {
    "exact": "exact match",
    "cider_d": "CIDEr-D (0 to 10)",
    "bleu4": "BLEU-4",
    "keyword_hit": "keyword hit",
    "cer": "CER ↓",
    "wer": "WER ↓",
    "accuracy": "VQA accuracy",
} | {
    f"{way}_r{k}": f"{way.replace('_to_', '→')} R@{k}"
    for way in ("image_to_text", "text_to_image")
    for k in (1, 5, 10)
}
ERRORS = ("cer", "wer")
BASELINES = {"blind": "question-only"}  # "blind" is the key that results have had from the start
"""How a table names a baseline; others by their own name."""
HEADLINES = {
    "retrieval/emoji/style_out": ("image_to_text_r1", "image_to_text_r5", "text_to_image_r1"),
    "retrieval/emoji/concept_out": ("image_to_text_r1",),
    "retrieval/stamps/photo_out": ("image_to_text_r1",),
    "caption/emoji/style_out": ("exact", "cider_d"),
    "caption/emoji/style_out/de": ("exact",),
    "caption/emoji/concept_out": ("keyword_hit",),
    "lines/ocr_lines/unseen_print": ("cer",),
    "lines/ocr_lines/unseen_print_clean": ("cer",),
    "lines/ocr_lines/unseen_script": ("cer",),
    "vqa/composites/test": ("accuracy",),
    "vqa/composites/concept_out": ("accuracy",),
    "vqa/easy_vqa/test": ("accuracy",),
}
"""Row of the benchmark -> metrics that README shows; PAPER shows all."""

Result = Mapping[str, Any]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; a row of dashes where there is nothing yet."""
    lines = [header, *(rows or [[DASH] * len(header)])]
    first, *rest = (f"| {' | '.join(line)} |\n" for line in lines)
    return first + "|---" * len(header) + "|\n" + "".join(rest)


def number(score: Mapping[str, Any] | None, *, with_std: bool = False) -> str:
    """A score as the tables print it, `.725` or `.725 ± .012`; a dash where there is none."""
    if score is None or score.get("value") is None:
        return DASH
    digits = 2 if score["unit"] == "points" else 3  # the deviation of a share is about .01
    parts = [score["value"]]
    if with_std and score.get("std") is not None:
        parts.append(score["std"])
    return " ± ".join(f"{part:.{digits}f}".removeprefix("0") for part in parts)


def best_baseline(row: Mapping[str, Any], metric: str) -> tuple[str, Mapping[str, Any]] | None:
    """Name and score of the strongest baseline of a metric; None where there is none."""
    scored = [(name, s[metric]) for name, s in row["baselines"].items() if metric in s]
    if not scored:
        return None
    sign = 1 if metric in ERRORS else -1
    # The name as well, so that ties print the same every time.
    return min(scored, key=lambda pair: (sign * pair[1]["value"], pair[0]))


def against(row: Mapping[str, Any], metric: str) -> str:
    """Score and name of the strongest baseline; a dash where there is none."""
    best = best_baseline(row, metric)
    return DASH if best is None else f"{number(best[1])} {BASELINES.get(best[0], best[0])}"


def place(row: Mapping[str, Any]) -> str:
    """Corpus, split and language of a row in words."""
    language = "" if row["language"] == "en" else f", {row['language']}"
    return f"{row['corpus']}, {SPLITS.get(row['split'], row['split'])}{language}"


def label(row: Mapping[str, Any], metric: str) -> str:
    """Task and metric of a score in words."""
    return f"{what(row)}: {title(metric)}"


def title(metric: str) -> str:
    """Name of a metric as people write it."""
    return TITLES.get(metric, metric.replace("accuracy:", "VQA accuracy, "))


def what(row: Mapping[str, Any]) -> str:
    """Task of a row in words."""
    if row["task"] == "retrieval":
        return f"search among {row['counts']['names']} names"
    return {"caption": "caption", "lines": "read a line", "vqa": "answer"}[row["task"]]


def headlines(result: Result | None) -> list[tuple[Mapping[str, Any], str]]:
    """Rows and metrics that the short table and the figure show."""
    rows = [] if result is None else result["rows"]
    metrics = [(row, metric) for row in rows for metric in HEADLINES.get(row["name"], ())]
    return [(row, metric) for row, metric in metrics if metric in row["metrics"]]


def manifest_scores(result: Result) -> dict[str, float]:
    """The headline scores of a benchmark as a bundle's manifest keeps them."""
    chosen = headlines(result)
    return {f"{row['name']}/{metric}": row["metrics"][metric]["value"] for row, metric in chosen}


def benchmark_table(result: Result | None) -> str:
    """Every metric of one benchmark."""
    rows = [] if result is None else result["rows"]
    return markdown(
        ("task", "test", "metric", "model", "baseline", "n"),
        [
            (
                what(row),
                place(row),
                title(metric),
                number(score, with_std=True),
                against(row, metric),
                str(score["n"]),
            )
            for row in rows
            for metric, score in row["metrics"].items()
        ],
    )
