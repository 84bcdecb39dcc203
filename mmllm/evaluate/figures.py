"""Draws a result's scores and a training run's losses as PNG, without a display."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmllm.common import paths
from mmllm.evaluate import scores

INK, MODEL, BASELINE = "#333333", "#2b6cb0", "#c9c9c9"
SMOOTHING = 0.9
LOSS_PREFIX = "loss/"


def pyplot() -> Any:
    """Matplotlib without a display, in the house's style.

    Raises:
      ModuleNotFoundError: it is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "figures need matplotlib: pip install 'mmllm[train]'", name="matplotlib"
        ) from error
    matplotlib.use("Agg")  # before pyplot, which would look for a display
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    return plt


def save(figure: Any, path: Path) -> None:
    """Writes a figure as PNG, whole, with the same bytes each time."""
    with paths.written_whole(path) as temporary:
        # Matplotlib's version in the metadata would change the bytes.
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def draw_scores(result: Mapping[str, Any], path: Path) -> None:
    """Bars of the headline scores, the best baseline behind each, error bars of one deviation.

    Args:
      result: of `benchmark.run`.
      path: PNG to write.
    """
    plt = pyplot()
    bars = [
        (row, metric)
        for row, metric in scores.headlines(result)
        if row["metrics"][metric]["unit"] == "share"  # CIDEr-D goes to 10, on another axis
    ]
    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.42 * len(bars)), layout="constrained")
    for place, (row, metric) in enumerate(bars):
        score, best = row["metrics"][metric], scores.best_baseline(row, metric)
        axes.barh(place, score["value"], 0.5, xerr=score["std"], color=MODEL, ecolor=INK)
        if best is not None:
            axes.barh(place, best[1]["value"], 0.8, color=BASELINE, zorder=0)
    axes.set_yticks(
        range(len(bars)),
        [f"{scores.label(row, metric)}\n{scores.place(row)}" for row, metric in bars],
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share (blue: model; grey: best baseline; ↓ lower is better)")
    save(figure, path)
    plt.close(figure)


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
    plt = pyplot()
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
    save(figure, target)
    plt.close(figure)
