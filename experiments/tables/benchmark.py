"""Tables of the benchmark: scores, data, parameters, what quantization retains, both engines."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.tables import notes
from mmllm.evaluate import scores
from mmllm.evaluate.scores import Result

SHIPPED = "nano"
FLOAT = "nano_float"
ENGINES_APART = 0.02
"""How far a share may differ between two engines that run the same codes: about the deviation of a
search among 469 pictures, for roundings that fall the other way."""
TASKS = {
    "search": ("retrieval/emoji/style_out", "image_to_text_r1"),
    "captions": ("caption/emoji/style_out", "exact"),
    "reading": ("lines/ocr_lines/unseen_print", "cer"),
    "questions": ("vqa/composites/test", "accuracy"),
}
"""The score that stands for each of the four tasks; of an error rate, what it leaves of one."""
MAX_LICENCES = 8


def named(part: str) -> str:
    """A part or layer of the model by the name it has now, whenever it was measured."""
    # At the start alone: "backbone/stem" is the first convolution.
    if part.startswith("stem/"):
        return part.replace("stem/", "backbone/", 1)
    return part.replace("pretrained stem", "pretrained backbone")


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


def scores_table(results: Sequence[Result]) -> str:
    """README: the headline scores of the newest full benchmark beside the best baseline."""
    result = latest_benchmark(results)
    header = ("task", "test", "score", "question-only, majority, chance or nearest neighbour")
    rows = [
        (
            scores.label(row, metric),
            scores.place(row),
            f"**{scores.number(row['metrics'][metric])}**",
            scores.against(row, metric),
        )
        for row, metric in scores.headlines(result)
    ]
    return notes.noted(header, rows, result)


def main_table(results: Sequence[Result]) -> str:
    """PAPER: every metric with bootstrap deviation, the best baseline and the sample size."""
    result = latest_benchmark(results)
    return scores.benchmark_table(result) + notes.footnotes([result] if result else [])


def data_table(results: Sequence[Result]) -> str:
    """PAPER: what was measured on, with the hash of each corpus."""
    result = latest_benchmark(results)
    rows = [] if result is None else result["data"]
    return scores.markdown(
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
    if len(single) > MAX_LICENCES:
        return f"{len(single)} free licences, see attribution.jsonl"
    return ", ".join(single) or scores.DASH


def parameters_table(results: Sequence[Result]) -> str:
    """PAPER: parameters and bytes by part of the measured model."""
    result = latest_benchmark(results)
    parts = {} if result is None else result["model"].get("tensor_classes", {})
    rows = [(named(part), f"{p['parameters']:,}", f"{p['bytes']:,}") for part, p in parts.items()]
    if rows:
        total = [sum(p[key] for p in parts.values()) for key in ("parameters", "bytes")]
        rows.append(("**all**", f"**{total[0]:,}**", f"**{total[1]:,}**"))
    return scores.markdown(("part", "parameters", "bytes as shipped"), rows)


def task_scores(result: Result) -> dict[str, float]:
    """The score of each of TASKS in a benchmark."""
    rows = {row["name"]: row["metrics"] for row in result["rows"]}
    values = {task: rows[row][metric]["value"] for task, (row, metric) in TASKS.items()}
    return {t: 1.0 - v if TASKS[t][1] in scores.ERRORS else v for t, v in values.items()}


def retention_table(results: Sequence[Result]) -> str:
    """README and PAPER: the share of the float model's scores that the shipped one retains."""
    whole = latest_benchmark(results, FLOAT, "jax")
    shipped = latest_benchmark(results)
    header = ("task", "score", "float", "as shipped", "retention")
    if whole is None or shipped is None:
        return scores.markdown(header, [])
    before, after = task_scores(whole), task_scores(shipped)
    rows = []
    for task, (row, metric) in TASKS.items():
        name = (
            f"1 - {scores.title(metric).removesuffix(' ↓')}"
            if metric in scores.ERRORS
            else scores.title(metric)
        )
        retention = after[task] / before[task]
        test = f"{name}, {scores.SPLITS.get(row.split('/')[2], row)}"
        rows.append(
            (
                task,
                test,
                f"{before[task]:.3f}",
                f"{after[task]:.3f}",
                f"{retention:.1%}",
            )
        )
    means = [sum(each.values()) / len(each) for each in (before, after)]
    mean = sum(after[task] / before[task] for task in TASKS) / len(TASKS)
    rows.append(
        (
            "**mean**",
            "of the scores; of the retentions",
            f"**{means[0]:.3f}**",
            f"**{means[1]:.3f}**",
            f"**{mean:.1%}**",
        )
    )
    return notes.noted(header, rows, whole, shipped)


def engines_table(results: Sequence[Result]) -> str:
    """PAPER: the headline scores of what ships through LiteRT and through JAX, from one bundle.

    Raises:
      ValueError: a share that differs by more than ENGINES_APART.
    """
    header = ("task", "test", "LiteRT", "JAX", "difference")
    lite, jaxed = (latest_benchmark(results, engine=name) for name in ("litert", "jax"))
    if lite and jaxed and lite["model"]["files"] != jaxed["model"]["files"]:
        jaxed = None  # of another bundle: to be measured anew
    by_lite = {(row["name"], metric): row for row, metric in scores.headlines(lite)}
    rows = []
    for row, metric in scores.headlines(jaxed):
        if (row["name"], metric) not in by_lite:
            continue
        found = by_lite[row["name"], metric]
        one, other = found["metrics"][metric], row["metrics"][metric]
        apart = one["value"] - other["value"]
        if one["unit"] == "share" and abs(apart) > ENGINES_APART:
            raise ValueError(
                f"{metric} of {row['name']} is {one['value']} through LiteRT and {other['value']} "
                f"through JAX: more than {ENGINES_APART} apart"
            )
        both = scores.number(one, with_std=True), scores.number(other, with_std=True)
        rows.append((scores.label(row, metric), scores.place(row), *both, f"{apart:+.3f}"))
    return notes.noted(header, rows, lite, jaxed)


TABLES: dict[str, Callable[[Sequence[Result]], str]] = {
    "scores": scores_table,
    "main": main_table,
    "data": data_table,
    "parameters": parameters_table,
    "retention": retention_table,
    "engines": engines_table,
}
