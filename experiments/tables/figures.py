"""Draws what only the documents show, as PNG, without a display."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.training import ablations
from mmllm.evaluate import figures

LABEL_GAP = 0.033  # of the axis: the height of a label
NEAR = 1.12  # of neighbouring sizes: the labels of both share a column
TURNS = 200  # of moving labels apart


def draw_quantization(result: Mapping[str, Any], path: Path) -> None:
    """Mean score over the four tasks against the megabytes of the master, a dot for each row.

    Args:
      result: file of `experiments.training.quantization`.
      path: PNG to write.
    """
    plt = figures.pyplot()
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in result["rows"]:
        found.setdefault(row["row"], []).append(row)
    columns: dict[int, list[tuple[str, int, float]]] = {}
    for name, seeds in found.items():
        size, scores = seeds[0]["bytes"], [row["average"] for row in seeds]
        mean = sum(scores) / len(scores)
        colour = figures.BASELINE if name.endswith(ablations.PTQ) else figures.MODEL
        axes.plot([size / 1e6] * len(scores), scores, ".", color=colour, markersize=4)
        axes.plot(size / 1e6, mean, "o", color=colour, markersize=6)
        columns.setdefault(size, []).append((name, size, mean))
    axes.set_xscale("log", base=2)  # halving the bits is one step, wherever it starts
    axes.set_xticks([4, 5, 6, 8, 12, 16], ["4", "5", "6", "8", "12", "16"])
    axes.minorticks_off()
    axes.set_xlabel("weights, MB (grey: PTQ)")
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
                arrowprops={"arrowstyle": "-", "color": figures.BASELINE, "linewidth": 0.5},
            )
    figures.save(figure, path)
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
    # Each pair moves apart evenly and may push the next one, hence the turns.
    for _ in range(TURNS):
        for low, high in itertools.pairwise(order):
            short = max(0.0, gap - (moved[high] - moved[low])) / 2
            moved[low], moved[high] = moved[low] - short, moved[high] + short
    return moved
