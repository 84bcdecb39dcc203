"""A report folder of one result, for reading: what `mmllm bench --report` writes."""

from pathlib import Path

from mmllm.common import paths
from mmllm.evaluate import figures, scores
from mmllm.evaluate.scores import Result


def write_report(result: Result, folder: Path, losses: Path | None = None) -> list[Path]:
    """Writes one result for reading: report.md, scores.png, and loss.png where a log is given.

    Args:
      result: of `benchmark.run`.
      folder: created if need be.
      losses: metrics.jsonl of the training run.

    Returns:
      The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "report.md", folder / "scores.png"]
    git = result["git"]
    state = "with local changes" if git["dirty"] else "clean"
    text = (
        f"# {result['model'].get('name', 'model')}, {result['mode']} benchmark\n\n"
        f"{result['date']}, commit {git['commit'] or scores.DASH} ({state}), "
        f"`{result['command']}`, "
        f"{result['device']['processor']}, {result['device']['cores']} cores, "
        f"{result['seconds']:.0f} s.\n\n{scores.benchmark_table(result)}\n![scores](scores.png)\n"
    )
    figures.draw_scores(result, written[1])
    if losses is not None:
        written.append(folder / "loss.png")
        figures.draw_losses(losses, written[2])
        text += "\n![losses](loss.png)\n"
    with paths.written_whole(written[0]) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return written
