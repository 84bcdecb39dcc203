"""`mmllm info`: what is in a model, its sizes, scores, languages and licences."""

import argparse
from typing import Any

from mmllm.commands import terminal

MEGABYTE = 10**6


def add(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "info", help="show a model's sizes, scores, languages and licences"
    )
    terminal.add_model_option(parser)
    terminal.add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Checks every file of the bundle and prints its manifest."""
    from mmllm import bundle
    from mmllm.runtime import model as model_lib

    folder = model_lib.locate(args.model)
    # Hashes every file: what is shown is true of this copy, too.
    manifest, _ = bundle.open_verified(folder)
    if args.json:
        terminal.print_json({"folder": str(folder), **manifest})
        return 0
    # A runtime takes one of the two: what an application must carry is less than the bundle.
    engine = bundle.LITERT if bundle.LITERT in manifest["files"] else bundle.WEIGHTS
    needed = sum(manifest["bytes"][file] for file in (engine, bundle.TOKENIZER)) / MEGABYTE
    millions = manifest["parameters"] / 1e6
    print(f"{manifest['name']}: {millions:.2f} M parameters, {needed:.2f} MB to run")
    print(f"folder     {folder} (every file verified)")
    sizes = [f"{file} {size / MEGABYTE:.2f} MB" for file, size in manifest["bytes"].items()]
    print(f"files      {', '.join(sizes)}")
    print(f"made by    {manifest.get('created_by', 'unknown')}")
    _print_provenance(manifest.get("provenance", {}))
    print(f"languages  {', '.join(manifest['languages'])}")
    print(f"reads      {manifest['charset'].strip()}\n")
    _print_sizes(manifest)
    _print_scores(manifest.get("scores", {}))
    _print_sources("data", manifest.get("data", []))
    _print_sources("pretrained", manifest.get("pretrained", []))
    return 0


def _print_provenance(made: dict[str, Any]) -> None:
    """Nothing for a bundle that was written before manifests said what made them."""
    if made:
        commit = f"{made.get('commit') or 'unknown'}{', changed' if made.get('dirty') else ''}"
        parent = (made.get("parent") or {}).get("run", "none")
        print(
            f"made from  commit {commit}; step {made.get('step')}; seed {made.get('seed')}; "
            f"training {str(made.get('training_sha256'))[:12]}; parent {parent}"
        )


def _print_sizes(manifest: dict[str, Any]) -> None:
    rows = [
        (label, f"{row['parameters']:,}", str(row["bits"]), f"{row['bytes'] / MEGABYTE:.3f}")
        for label, row in manifest["tensor_classes"].items()
    ]
    terminal.print_table(("tensors of the master", "parameters", "bits", "MB"), rows)


def _print_scores(scores: dict[str, Any]) -> None:
    rows = [(name, _score(value)) for name, value in _flat(scores)]
    if rows:
        print()
        terminal.print_table(("score", "value"), rows)


def _print_sources(title: str, sources: list[dict[str, Any]]) -> None:
    rows = [
        (row["name"], row.get("version", "-"), str(row.get("licence", "-")), _digest(row))
        for row in sources
    ]
    if rows:
        print()
        terminal.print_table((title, "version", "licence", "sha256"), rows)


def _digest(row: dict[str, Any]) -> str:
    digest = row.get("sha256") or row.get("hash") or ""
    return digest[:12] or "-"


def _flat(scores: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in scores.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name} ")
        else:
            rows.append((f"{prefix}{name}", value))
    return rows


def _score(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
