"""Result files -> the tables of README.md and PAPER.md, and a report folder of one result.

Tables stand between `<!-- table:NAME -->` and `<!-- /table -->`; `python -m mmllm.evaluate.report`
rewrites them from experiments/results/*.json, and a test fails while they are stale.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmllm.common import paths
from mmllm.evaluate import artifact_tables, figures, provenance, service_tables, tables
from mmllm.evaluate.tables import Result

RESULTS = Path("experiments/results")
DOCUMENTS = ("README.md", "PAPER.md")
TABLES = {**tables.TABLES, **artifact_tables.TABLES, **service_tables.TABLES}
MARKED = re.compile(r"(<!-- table:([a-z_]+) -->\n)(.*?)(<!-- /table -->)", re.DOTALL)


def load_results(folder: Path) -> list[dict[str, Any]]:
    """Full results of a folder, oldest first; smoke runs are left out.

    Raises:
      ValueError: a file that is no result.
    """
    results = []
    for path in sorted(folder.glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON ({error}); run `mmllm bench` again") from error
        if not isinstance(result, dict) or not {"kind", "mode", "date"} <= result.keys():
            raise ValueError(f"{path} is no result file: it lacks kind, mode or date")
        if result["mode"] == "full":
            results.append(result)
    return sorted(results, key=lambda result: result["date"])


def render(document: str, results: Sequence[Result]) -> str:
    """A document with its marked tables drawn anew; tables without a renderer stay as they are."""

    def drawn(match: re.Match[str]) -> str:
        opening, name, old, closing = match.groups()
        return opening + (TABLES[name](results) if name in TABLES else old) + closing

    return MARKED.sub(drawn, document)


def stale(root: Path) -> list[str]:
    """Names of the documents of a repository whose tables differ from its results."""
    results = load_results(root / RESULTS)
    texts = {name: (root / name).read_text(encoding="utf-8") for name in DOCUMENTS}
    return [name for name, text in texts.items() if text != render(text, results)]


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
        f"{result['date']}, commit {git['commit'] or tables.DASH} ({state}), "
        f"`{result['command']}`, "
        f"{result['device']['processor']}, {result['device']['cores']} cores, "
        f"{result['seconds']:.0f} s.\n\n{tables.benchmark_table(result)}\n![scores](scores.png)\n"
    )
    figures.draw_scores(result, written[1])
    if losses is not None:
        written.append(folder / "loss.png")
        figures.draw_losses(losses, written[2])
        text += "\n![losses](loss.png)\n"
    with paths.written_whole(written[0]) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return written


def main(root: Path = provenance.REPOSITORY) -> int:
    """Rewrites the tables of the documents; prints which ones changed."""
    changed = stale(root)
    results = load_results(root / RESULTS)
    for name in changed:
        text = render((root / name).read_text(encoding="utf-8"), results)
        with paths.written_whole(root / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(f"rewrote the tables of {', '.join(changed)}" if changed else "the tables are up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
