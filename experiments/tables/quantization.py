"""The table of bits, grids, scales and policies: a row for each of configs/quant/ablation.py."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.tables import notes
from experiments.tables.benchmark import TASKS
from experiments.training import ablations
from mmllm.evaluate import scores
from mmllm.evaluate.scores import Result


def quantization_table(results: Sequence[Result]) -> str:
    """PAPER: bits, grids, scales and policies; deviations are those between runs.

    Runs may have different float starts; retention compares each with its own. A measured row
    without a label stands at the end, under its own name.
    """
    measured = notes.rows_of(results, "quantization")
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in measured:
        found.setdefault(row["row"], []).append(row)
    starts = {row["start"]: row["average"] for row in found.get(ablations.FLOAT_START, ())}
    labels = ablations.labels()
    # Of rows that the config no longer lists, so that no measurement disappears unnoticed.
    unnamed = {name: (scores.DASH, name) for name in found if name not in labels}
    rows = [
        (bits, notes.signed(what, *found[name]), *_columns(found[name], starts))
        for name, (bits, what) in {**labels, **unnamed}.items()
        if name in found
    ]
    heads = [f"{task}: {scores.title(metric)}" for task, (_, metric) in TASKS.items()]
    header = ("bits", "model", "MB", *heads, "mean", "retention", "runs")
    return scores.markdown(header, rows) + notes.footnotes(measured)


def _columns(runs: Sequence[Result], starts: Mapping[str | None, float]) -> list[str]:
    """Megabytes, the four scores, their mean, retention, and the number of runs."""
    tasks = [
        _over_runs([each["scores"][row]["value"] for each in runs]) for row, _ in TASKS.values()
    ]
    average = _over_runs([each["average"] for each in runs])
    shares = [each["average"] / starts[each["start"]] for each in runs if each["start"] in starts]
    retention = f"{sum(shares) / len(shares):.1%}" if shares else scores.DASH
    return [f"{runs[0]['bytes'] / 1e6:.2f}", *tasks, average, retention, str(len(runs))]


def _over_runs(values: Sequence[float]) -> str:
    """Mean and, of several, the deviation between them."""
    mean = sum(values) / len(values)
    if len(values) == 1:  # one run says nothing about the deviation
        return f"{mean:.3f}".removeprefix("0")
    spread = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return f"{mean:.3f} ± {spread:.3f}".replace("0.", ".")


TABLES: dict[str, Callable[[Sequence[Result]], str]] = {"quantization": quantization_table}
