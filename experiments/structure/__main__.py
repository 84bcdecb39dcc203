"""Measures the structure of a checkout: what a reader meets, before and after a redesign.

Command:  python -m experiments.structure before --at COMMIT; python -m experiments.structure after
Hardware: any; only the source is read, nothing of it is run.
Time:     seconds.
Writes:   experiments/results/structure.json, a row for each label; a rerun replaces its row.

`--check` only follows the walks of walks.json and says which stop is gone.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.structure import measures, source, walks
from mmllm.common import paths
from mmllm.evaluate import provenance

RESULT = Path(__file__).parents[1] / "results" / "structure.json"
KIND = "structure"
REPEATED = {
    "gradients": ("jax.value_and_grad", "jax.grad"),
    "optimizers": ("optax.adamw", "optax.adam"),
}
"""Written once in a house with one training loop and one optimizer."""


def measure(root: Path, version: str) -> dict[str, Any]:
    """Every figure of a checkout.

    Args:
      root: the checkout.
      version: of the walks, "before" or "after".

    Raises:
      FileNotFoundError: no checkout.
      ValueError: a walk that the code no longer takes.
    """
    modules, tests = source.read(root), source.read(root, source.TESTS)
    folders = measures.folders(modules)
    return {
        "files": len(modules),
        "lines": sum(module.lines for module in modules.values()),
        "test_files": len(tests),
        "test_lines": sum(module.lines for module in tests.values()),
        "folders": folders,
        "crowded": [row["folder"] for row in folders if row["files"] > measures.MAX_FILES],
        "comments": measures.comments_by_folder(modules),
        "public_names": measures.public_names(modules),
        "numbers": measures.numbers(modules),
        "copies": measures.copies(modules),
        "repeated": {what: measures.users(modules, *names) for what, names in REPEATED.items()},
        "walks": [walks.follow(modules, leg) for leg in walks.load(version)],
    }


def commit_of(folder: Path, commit: str = "HEAD") -> str | None:
    """The full name of a commit; None outside a repository."""
    command = ["git", "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def with_row(result: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """A result with a row in the place of the one with the same label."""
    others = [each for each in result.get("rows", ()) if each["label"] != row["label"]]
    rows = sorted([*others, row], key=lambda each: walks.VERSIONS.index(each["label"]))
    origin = provenance.record()
    origin["command"] = origin["command"].replace("__main__.py", "python -m experiments.structure")
    return {"kind": KIND, "mode": "full", **origin, "rows": rows}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("label", choices=walks.VERSIONS, help="of the row, and of its walks")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--at", metavar="COMMIT", help="measure a commit of this repository")
    chosen.add_argument("--root", type=Path, default=provenance.REPOSITORY, help="a checkout")
    parser.add_argument("--check", action="store_true", help="only follow the walks")
    parser.add_argument("--out", type=Path, default=RESULT, help=f"default {RESULT.name}")
    args = parser.parse_args(arguments)
    if args.check:
        return _check(args.root, args.label)
    if args.at:
        commit, dirty = commit_of(args.root, args.at), False
        with source.checked_out(args.root, args.at) as root:
            found = measure(root, args.label)
    else:
        state = provenance.source_state() if args.root == provenance.REPOSITORY else {}
        commit, dirty = commit_of(args.root), state.get("dirty")
        found = measure(args.root, args.label)
    known = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    row = {"label": args.label, "commit": commit, "dirty": dirty, **found}
    with paths.written_whole(args.out) as partial:
        partial.write_text(json.dumps(with_row(known, row), indent=1, ensure_ascii=False) + "\n")
    print(f"written: {args.out.name}, row {args.label}")
    return 0


def _check(root: Path, version: str) -> int:
    """Prints each leg with its counts, or the first stop that is wrong."""
    modules, failed = source.read(root), False
    for leg in walks.load(version):
        try:
            found = walks.follow(modules, leg)
        except ValueError as error:
            failed = True
            print(f"WRONG  {leg.walk}: {error}")
            continue
        print(f"{leg.walk}, {leg.name}: {found['stops']} stops, {found['files']} files")
        for kind in ("climbs", "returns"):
            print(f"  {len(found[kind])} {kind}", *found[kind], sep="\n    ")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
