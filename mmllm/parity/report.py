"""A bundle's LiteRT file against JAX: measured, judged, and written down.

Each layer is compared on the input it has in JAX, in a file of its own whose weights are packed in
the same way; outputs and tokens are those of the bundle's file. Through many layers, one activation
whose rounding falls the other way changes all roundings behind it, and no tolerance near that of a
layer can hold. There JAX is compared with itself too, its inputs changed by one part in two
million: LiteRT may be a few times as far from JAX as JAX is from itself.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmllm import bundle
from mmllm.common import paths
from mmllm.parity import layers, outputs, tokens
from mmllm.parity import samples as samples_lib
from mmllm.parity.rows import TOLERANCE, ParityError, Row
from mmllm.parity.tokens import ITSELF, SAME_PICTURES, SAME_PREFIX
from mmllm.runtime.model import MobileMultiModalLLM

SAME_TOKENS = 0.99
"""Least share of answers that are the same token for token, from the same image tokens; less where
JAX against itself has less, by as much."""

MIN_SAME = 0.95
"""Least such share whatever JAX does against itself."""

SLACK = {SAME_PREFIX: 0.01, SAME_PICTURES: 0.05}
"""By how much fewer answers may be the same than JAX gives against itself."""


def measure(folder: Path, inputs: samples_lib.Inputs, *, threads: int = 2) -> dict[str, Any]:
    """Compares a bundle's LiteRT file with JAX.

    Args:
      folder: a bundle that has the file.
      inputs: what both are run on.
      threads: of LiteRT.

    Returns:
      {"layers", "outputs", "tokens", ...}, ready for JSON; `check` judges it.
    """
    loaded = bundle.load(folder)
    lite = MobileMultiModalLLM.from_pretrained(folder, "litert", threads)
    ours = MobileMultiModalLLM.from_pretrained(folder, "jax")
    samples = samples_lib.of_inputs(ours, inputs)
    return {
        "kind": "parity",
        "file": {
            "name": bundle.LITERT,
            # So that a report can be told from that of another export.
            "sha256": loaded.manifest["files"][bundle.LITERT],
        },
        "pictures": len(samples.pixels),
        "lines": len(samples.lines),
        "answers": len(samples.pixels) * len(samples.prompts),
        "layers": [dataclasses.asdict(row) for row in layers.layers(loaded, samples, threads)],
        "outputs": [
            dataclasses.asdict(row) for row in outputs.outputs(lite.engine, ours.engine, samples)
        ],
        "tokens": tokens.same_tokens(lite, ours, samples),
    }


def check(measured: Mapping[str, Any]) -> None:
    """Judges what `measure` found.

    Raises:
      ParityError: the first layer, in the order in which they run, or output that is too far off.
    """
    # Layers first, in the order in which they run: one that is off explains all behind it.
    for kind in ("layers", "outputs"):
        for values in measured[kind]:
            row = Row(**values)
            if not row.good:
                raise ParityError(
                    f"{kind.removesuffix('s')} {row.name}: LiteRT differs from JAX by "
                    f"{row.median:.2g} of the norm (largest of {row.samples}: {row.largest:.2g}), "
                    f"allowed {row.allowed:.2g} (largest {row.limit:.2g})"
                )
    for part, start, floor in (
        ("decoder", SAME_PREFIX, MIN_SAME),
        ("model", SAME_PICTURES, 0.0),
    ):
        same, itself = (measured["tokens"][start + end] for end in ("", f", {ITSELF}"))
        # Where JAX's own answers change with next to nothing in its inputs, no file does better.
        least = max(floor, min(SAME_TOKENS, itself - SLACK[start]))
        if same < least:
            raise ParityError(
                f"{part}: {same:.1%} of {measured['answers']} answers from the {start} are the "
                f"same as JAX's, at least {least:.1%} must be"
            )


def summary(measured: Mapping[str, Any]) -> str:
    """The report in two lines."""
    worst = max((Row(**values) for values in measured["layers"]), key=lambda row: row.median)
    shares = [f"{name} {share:.1%}" for name, share in measured["tokens"].items()]
    return (
        f"parity: {len(measured['layers'])} layers within {worst.median:.1e} of JAX "
        f"({worst.name}; {TOLERANCE:.0e} allowed)\n"
        f"        of {measured['answers']} answers the same tokens: {'; '.join(shares)}"
    )


def markdown(measured: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"# {measured['file']['name']} against JAX",
        "",
        f"sha256 {measured['file']['sha256']}",
        "",
        "Relative error: norm of the difference over the norm in JAX. Each layer has the input it "
        "has in JAX.",
    ]
    for kind in ("layers", "outputs"):
        lines += ["", f"| {kind.removesuffix('s')} | samples | median | largest | allowed |"]
        lines += ["|---|---|---|---|---|"]
        for values in measured[kind]:
            row = Row(**values)
            allowed = "-" if row.allowed is None else f"{row.allowed:.1e}"
            lines.append(
                f"| {row.name} | {row.samples} | {row.median:.1e} | {row.largest:.1e} | {allowed} |"
            )
    lines += ["", "| answers that are the same token for token | share |", "|---|---|"]
    lines += [f"| {name} | {share:.4f} |" for name, share in measured["tokens"].items()]
    return "\n".join(lines) + "\n"


def write(measured: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes parity.json and parity.md into a folder, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = json.dumps(measured, indent=1, allow_nan=False) + "\n"
    written = [folder / "parity.json", folder / "parity.md"]
    for path, text in zip(written, (plain, markdown(measured)), strict=True):
        with paths.written_whole(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return written
