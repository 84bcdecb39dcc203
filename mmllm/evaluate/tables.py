"""Tables of a result file as Markdown: what README.md and PAPER.md show between their marks.

Stands after `mmllm.evaluate.benchmark`; `report` puts the tables into the documents.
"""

import re
from collections.abc import Callable, Mapping, Sequence
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
SHIPPED = "nano"
MOST_LICENCES = 8
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
    cells = [header, *(rows or [[DASH] * len(header)])]
    first, *rest = (f"| {' | '.join(line)} |\n" for line in cells)
    return first + "|---" * len(header) + "|\n" + "".join(rest)


def number(score: Mapping[str, Any] | None, *, with_std: bool = False) -> str:
    """A score as the tables print it, `.725` or `.725 ± .012`; a dash where there is none."""
    if score is None or score.get("value") is None:
        return DASH
    digits = 2 if score["unit"] == "points" else 3
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
    return min(scored, key=lambda pair: (sign * pair[1]["value"], pair[0]))


def _against(row: Mapping[str, Any], metric: str) -> str:
    best = best_baseline(row, metric)
    return DASH if best is None else f"{number(best[1])} {best[0]}"


def place(row: Mapping[str, Any]) -> str:
    """Corpus, split and language of a row in words."""
    language = "" if row["language"] == "en" else f", {row['language']}"
    return f"{row['corpus']}, {SPLITS.get(row['split'], row['split'])}{language}"


def label(row: Mapping[str, Any], metric: str) -> str:
    """Task and metric of a score in words."""
    return f"{_what(row)}: {title(metric)}"


def title(metric: str) -> str:
    """Name of a metric as people write it."""
    return TITLES.get(metric, metric.replace("accuracy:", "VQA accuracy, "))


def _what(row: Mapping[str, Any]) -> str:
    if row["task"] == "retrieval":
        return f"search among {row['counts']['names']} names"
    return {"caption": "caption", "lines": "read a line", "vqa": "answer"}[row["task"]]


def latest_benchmark(
    results: Sequence[Result], name: str = SHIPPED, engine: str = "litert"
) -> Result | None:
    """The newest full benchmark of a model through an engine; None where there is none."""
    benchmarks = [
        result
        for result in results
        if result["kind"] == "benchmark"
        and result["model"].get("name", SHIPPED) == name
        and result["model"].get("engine", "litert") == engine
    ]
    return benchmarks[-1] if benchmarks else None


def headlines(result: Result | None) -> list[tuple[Mapping[str, Any], str]]:
    """Rows and metrics that the short table and the figure show."""
    rows = [] if result is None else result["rows"]
    metrics = [(row, metric) for row in rows for metric in HEADLINES.get(row["name"], ())]
    return [(row, metric) for row, metric in metrics if metric in row["metrics"]]


def manifest_scores(result: Result) -> dict[str, float]:
    """The headline scores of a benchmark as a bundle's manifest keeps them."""
    chosen = headlines(result)
    return {f"{row['name']}/{metric}": row["metrics"][metric]["value"] for row, metric in chosen}


def scores_table(results: Sequence[Result]) -> str:
    """README: the headline scores of the newest full benchmark beside the best baseline."""
    cells = headlines(latest_benchmark(results))
    header = ("task", "test", "score", "blind, majority, chance or nearest neighbour")
    return markdown(
        header,
        [
            (
                label(row, metric),
                place(row),
                f"**{number(row['metrics'][metric])}**",
                _against(row, metric),
            )
            for row, metric in cells
        ],
    )


def main_table(results: Sequence[Result]) -> str:
    """PAPER: every metric with bootstrap deviation, the best baseline and the sample size."""
    return benchmark_table(latest_benchmark(results))


def benchmark_table(result: Result | None) -> str:
    """Every metric of one benchmark."""
    rows = [] if result is None else result["rows"]
    return markdown(
        ("task", "test", "metric", "model", "baseline", "n"),
        [
            (
                _what(row),
                place(row),
                title(metric),
                number(score, with_std=True),
                _against(row, metric),
                str(score["n"]),
            )
            for row in rows
            for metric, score in row["metrics"].items()
        ],
    )


def data_table(results: Sequence[Result]) -> str:
    """PAPER: what was measured on, with the hash of each corpus."""
    result = latest_benchmark(results)
    rows = [] if result is None else result["data"]
    return markdown(
        ("corpus", "split", "examples", "licence"),
        [
            (data["name"], split, f"{count:,}", _licences(data))
            for data in rows
            for split, count in data.get("splits", {}).items()
        ],
    )


def _licences(data: Mapping[str, Any]) -> str:
    """The licences of a corpus, each once; only their number where there are many."""
    joined = data.get("licences", ())
    single = sorted({part for licence in joined for part in re.split(" AND | OR ", licence)})
    if len(single) > MOST_LICENCES:
        return f"{len(single)} free licences, see attribution.jsonl"
    return ", ".join(single) or DASH


def name_search_table(results: Sequence[Result]) -> str:
    """PAPER: what the search for names gains from views, artists and tuning."""
    found = [result for result in results if result["kind"] == "name_search"]
    rows = found[-1]["rows"] if found else []
    metrics = [
        f"style_out/{name}" for name in ("image_to_text_r1", "image_to_text_r5", "text_to_image_r1")
    ] + ["concept_out/image_to_text_r1"]
    titles = [f"{SPLITS[split]}: {title(name)}" for split, name in (m.split("/") for m in metrics)]
    return markdown(
        ("trained on", "drawings", *titles),
        [
            (
                row["name"],
                f"{row['pictures']:,}",
                *(number(row["metrics"][metric], with_std=True) for metric in metrics),
            )
            for row in rows
        ],
    )


def limits_table(results: Sequence[Result]) -> str:
    """PAPER: what each part of the model costs, by putting something better in its place."""
    found = [result for result in results if result["kind"] == "limits"]
    rows = found[-1]["rows"] if found else []
    shown = ("image_to_text_r1", "image_to_text_r5", "exact", "accuracy")
    return markdown(
        ("test", "from", "metric", "score", "n"),
        [
            (place(row), row["part"], title(metric), number(score, with_std=True), str(score["n"]))
            for row in rows
            for metric, score in row["metrics"].items()
            if metric in shown
        ],
    )


def parameters_table(results: Sequence[Result]) -> str:
    """PAPER: parameters and bytes by part of the measured model."""
    result = latest_benchmark(results)
    parts = {} if result is None else result["model"].get("tensor_classes", {})
    rows = [(part, f"{p['parameters']:,}", f"{p['bytes']:,}") for part, p in parts.items()]
    if rows:
        total = [sum(p[key] for p in parts.values()) for key in ("parameters", "bytes")]
        rows.append(("**all**", f"**{total[0]:,}**", f"**{total[1]:,}**"))
    return markdown(("part", "parameters", "bytes as shipped"), rows)


TABLES: dict[str, Callable[[Sequence[Result]], str]] = {
    "scores": scores_table,
    "main": main_table,
    "data": data_table,
    "parameters": parameters_table,
    "name_search": name_search_table,
    "limits": limits_table,
}
