"""Draws a result's scores and a training run's losses as PNG, without a display."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmllm.common import paths
from mmllm.evaluate import tables

INK, MODEL, BASELINE = "#333333", "#2b6cb0", "#c9c9c9"
SMOOTHING = 0.9
LOSS_PREFIX = "loss/"
LABEL_GAP = 0.033  # of the axis: the height of a label
NEAR = 1.12  # of neighbouring sizes: the labels of both share a column
TURNS = 200  # of moving labels apart


def _pyplot() -> Any:
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "figures need matplotlib: pip install 'mmllm[train]'", name="matplotlib"
        ) from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    return plt


def _save(figure: Any, path: Path) -> None:
    with paths.written_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def draw_scores(result: Mapping[str, Any], path: Path) -> None:
    """Bars of the headline scores, the best baseline behind each, error bars of one deviation.

    Args:
      result: of `benchmark.run`.
      path: PNG to write.
    """
    plt = _pyplot()
    cells = [
        (row, metric)
        for row, metric in tables.headlines(result)
        if row["metrics"][metric]["unit"] == "share"
    ]
    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.42 * len(cells)), layout="constrained")
    for place, (row, metric) in enumerate(cells):
        score, best = row["metrics"][metric], tables.best_baseline(row, metric)
        axes.barh(place, score["value"], 0.5, xerr=score["std"], color=MODEL, ecolor=INK)
        if best is not None:
            axes.barh(place, best[1]["value"], 0.8, color=BASELINE, zorder=0)
    axes.set_yticks(
        range(len(cells)),
        [f"{tables.label(row, metric)}\n{tables.place(row)}" for row, metric in cells],
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share (blue: model; grey: best baseline; ↓ lower is better)")
    _save(figure, path)
    plt.close(figure)


def draw_quantization(result: Mapping[str, Any], path: Path) -> None:
    """Mean score over the four tasks against the megabytes of the master, a dot for each row.

    Args:
      result: of `experiments.quantization`.
      path: PNG to write.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in result["rows"]:
        found.setdefault(row["row"], []).append(row)
    columns: dict[int, list[tuple[str, int, float]]] = {}
    for name, seeds in found.items():
        size, scores = seeds[0]["bytes"], [row["average"] for row in seeds]
        mean = sum(scores) / len(scores)
        colour = BASELINE if name.endswith("_ptq") else MODEL
        axes.plot([size / 1e6] * len(scores), scores, ".", color=colour, markersize=4)
        axes.plot(size / 1e6, mean, "o", color=colour, markersize=6)
        columns.setdefault(size, []).append((name, size, mean))
    axes.set_xscale("log", base=2)
    axes.set_xticks([4, 5, 6, 8, 12, 16], ["4", "5", "6", "8", "12", "16"])
    axes.minorticks_off()
    axes.set_xlabel("weights, MB (grey: rounded only)")
    axes.set_ylabel("mean score of four tasks")
    axes.margins(x=0.25)
    bottom, top = axes.get_ylim()
    crowded = max(columns, key=lambda size: len(columns[size]))
    for sizes in _columns(sorted(columns), crowded):
        left = sizes[-1] <= crowded  # towards the margin, beside the leftmost dot
        beside = sizes[0] * 0.95 if left else sizes[-1] * 1.05
        labels = [label for size in sizes for label in columns[size]]
        heights = _apart([mean for _, _, mean in labels], LABEL_GAP * (top - bottom))
        for (name, x, mean), height in zip(labels, heights, strict=True):
            axes.annotate(
                name,
                (x / 1e6, mean),
                xytext=(beside / 1e6, height),
                fontsize=7,
                va="center",
                ha="right" if left else "left",
                arrowprops={"arrowstyle": "-", "color": BASELINE, "linewidth": 0.5},
            )
    _save(figure, path)
    plt.close(figure)


def _columns(sizes: Sequence[int], crowded: int) -> list[list[int]]:
    """Sizes, ascending, whose labels share a column: neighbours on one side of the crowded one."""
    found = [[sizes[0]]]
    for before, size in itertools.pairwise(sizes):
        if size < before * NEAR and (size <= crowded or before > crowded):
            found[-1].append(size)
        else:
            found.append([size])
    return found


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Heights moved until they lie `gap` apart, in the same order, each no further than it must."""
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    moved = list(heights)
    for _ in range(TURNS):
        for low, high in itertools.pairwise(order):
            short = max(0.0, gap - (moved[high] - moved[low])) / 2
            moved[low], moved[high] = moved[low] - short, moved[high] + short
    return moved


def read_losses(path: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each loss in a metrics.jsonl, null values left out.

    Raises:
      ValueError: a line that is not JSON, or no loss at all.
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    for place, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path} line {place} is not JSON: {error}") from error
        for key, value in row.items():
            if key.startswith(LOSS_PREFIX) and value is not None:
                name = key.removeprefix(LOSS_PREFIX)
                curves.setdefault(name, []).append((int(row["step"]), float(value)))
    if not curves:
        raise ValueError(f"{path} holds no losses: no key starts with {LOSS_PREFIX}")
    return curves


def draw_losses(path: Path, target: Path) -> None:
    """Loss of each task over the steps, smoothed exponentially, on a logarithmic axis.

    Args:
      path: metrics.jsonl of a training run.
      target: PNG to write.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for name, points in read_losses(path).items():
        smooth, curve = points[0][1], []
        for _, value in points:
            smooth = SMOOTHING * smooth + (1 - SMOOTHING) * value
            curve.append(smooth)
        axes.plot([step for step, _ in points], curve, label=name, linewidth=1.2)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend(frameon=False, ncols=2)
    _save(figure, target)
    plt.close(figure)
