"""Result files -> the tables of README.md and PAPER.md.

Tables stand between `<!-- table:NAME -->` and `<!-- /table -->`; `python -m experiments.tables`
rewrites them from experiments/results/*.json, and a test fails while they are stale.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import rows as rows_lib
from experiments.tables import artifact, benchmark, quantization, serving, today, training
from mmllm.common import paths
from mmllm.evaluate import provenance
from mmllm.evaluate.scores import Result

RESULTS = Path("experiments/results")
DOCUMENTS = ("README.md", "PAPER.md")
TABLES = {
    **benchmark.TABLES,
    **training.TABLES,
    **quantization.TABLES,
    **artifact.TABLES,
    **serving.TABLES,
}
MARKED = re.compile(r"(<!-- table:([a-z_]+) -->\n)(.*?)(<!-- /table -->)", re.DOTALL)


def load_results(folder: Path) -> list[dict[str, Any]]:
    """Full results of a folder, oldest first; smoke runs are left out.

    Benchmarks come with "marks", rows of experiments with "stale": whether their config is another
    one today.

    Raises:
      ValueError: a file that is no result.
    """
    results = []
    for path in sorted(folder.glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON ({error}); measure it again") from error
        if not isinstance(result, dict) or not {"kind", "mode", "date"} <= result.keys():
            raise ValueError(f"{path} is no result file: it lacks kind, mode or date")
        if result["mode"] == "full":
            results.append(_compared(result))
    # By their own date: a checkout gives all files one time, in any order.
    return sorted(results, key=lambda result: result["date"])


def _compared(result: dict[str, Any]) -> dict[str, Any]:
    if result["kind"] == "benchmark":
        return {**result, "marks": rows_lib.marks(result)}
    if result["kind"] not in today.KINDS:
        return result
    for row in result["rows"]:
        row["stale"] = rows_lib.is_stale(result, row, today.config_of(result["kind"], row))
    return result


def render(document: str, results: Sequence[Result]) -> str:
    """A document with its marked tables drawn anew; tables without a renderer stay as they are."""

    def drawn(match: re.Match[str]) -> str:
        opening, name, old, closing = match.groups()
        return opening + (TABLES[name](results) if name in TABLES else old) + closing

    return MARKED.sub(drawn, document)


def outdated(root: Path) -> list[str]:
    """Names of the documents of a repository whose tables differ from its results."""
    results = load_results(root / RESULTS)
    texts = {name: (root / name).read_text(encoding="utf-8") for name in DOCUMENTS}
    return [name for name, text in texts.items() if text != render(text, results)]


def main(root: Path = provenance.REPOSITORY) -> int:
    """Rewrites the tables of the documents; prints which ones changed."""
    changed = outdated(root)
    results = load_results(root / RESULTS)
    for name in changed:
        text = render((root / name).read_text(encoding="utf-8"), results)
        with paths.written_whole(root / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(f"rewrote the tables of {', '.join(changed)}" if changed else "the tables are up to date")
    return 0
