"""Tables about what ships: where the bytes are, how near it is to JAX, how fast it runs."""

import re
from collections.abc import Callable, Sequence

from experiments.tables import notes
from experiments.tables.benchmark import named
from mmllm.evaluate import scores
from mmllm.evaluate.scores import Result

PARTS = {
    # Results from before the rename call the backbone "stem".
    r"(backbone|stem)/(stem|block_[0-3])": "backbone: first convolution, blocks 0 to 3, float",
    r"(backbone|stem)/block_([4-9]|10)": "backbone: blocks 4 to 10, at 8 bits",
    r"(backbone|stem)/block_1[1-5]": "backbone: blocks 11 to 15, at 4 and 8 bits",
    r"picture_tokens|encoder/.*": "picture tokens and encoder",
    r"(feature|stem)_affine|image_embedding|embedding_token": "image embedding",
    r"line_.*": "line tokens and reader, without encoder",
    r"text_tower/.*": "text tower",
    r"decoder/block_\d+|decoder/norm": "decoder, the prompt",
    r"decoder/block_\d+\.step": "decoder, one token",
    r"embed\.logits": "logits of the vocabulary",
}
"""Where the time goes: layers, by pattern, and what they are together."""


def bytes_table(results: Sequence[Result]) -> str:
    """README and PAPER: every byte of the LiteRT file."""
    result = notes.newest(results, "artifact")
    rows = [
        (
            named(row["part"]),
            row["type"],
            f"{row['weights']:,}",
            f"{row['bytes']:,}",
            f"{row['times']:.1f}" if row["times"] else scores.DASH,
        )
        for row in (result["parts"] if result else ())
    ]
    if result:
        whole, size = result["float32_bytes"], result["bytes"]
        rows.append(
            ("**all**", scores.DASH, scores.DASH, f"**{size:,}**", f"**{whole / size:.2f}**")
        )
    header = ("part", "type", "numbers", "bytes", "times smaller than float32")
    return notes.noted(header, rows, result)


def parity_table(results: Sequence[Result]) -> str:
    """PAPER: the LiteRT file against JAX."""
    result = notes.newest(results, "artifact")
    header = ("compared", "with", "n", "median error", "largest")
    if result is None:
        return scores.markdown(header, [])
    parity = result["parity"]
    # Of all layers the worst one: a mean would hide it.
    worst = max(parity["layers"], key=lambda row: row["median"])
    shown = [
        (f"{len(parity['layers'])} layers, the worst: {named(worst['name'])}", worst),
        *((row["name"], row) for row in parity["outputs"]),
    ]
    rows = [
        (
            name,
            "the same input",
            str(row["samples"]),
            f"{row['median']:.1e}",
            f"{row['largest']:.1e}",
        )
        for name, row in shown
    ]
    rows += [
        ("greedy captions", name, str(parity["answers"]), f"{share:.1%} the same", scores.DASH)
        for name, share in parity["tokens"].items()
    ]
    return notes.noted(header, rows, result)


def _on(result: Result | None) -> str:
    """Which processor timed a result, to stand in a table's header."""
    return f" ({result['device']['processor']})" if result else ""


def latency_table(results: Sequence[Result]) -> str:
    """README and PAPER: milliseconds of each stage in LiteRT, and the gain on other processors."""
    timed = sorted(notes.rows_of(results, "latency"), key=lambda row: row["date"])[::-1]
    gains = [
        {
            (row["stage"], row["threads"]): f"{row['speedup']['bundle']:.2f}"
            for row in each["stages"]
        }
        for each in timed
    ]
    rows = [
        (
            row["stage"],
            str(row["threads"]),
            *(f"{row['milliseconds'][file]:.2f}" for file in ("float32", "int8", "bundle")),
            *(gain.get((row["stage"], row["threads"]), scores.DASH) for gain in gains),
        )
        for row in (timed[0]["stages"] if timed else ())
    ]
    header = (
        f"stage{_on(timed[0] if timed else None)}",
        "threads",
        "float32 ms",
        "int8 ms",
        "as shipped ms",
        "times faster",
        *(f"on {each['device']['processor']}" for each in timed[1:]),
    )
    return notes.noted(header, rows, *timed)


def profile_table(results: Sequence[Result]) -> str:
    """PAPER: milliseconds of each part by itself, one thread."""
    result = notes.newest(results, "latency")
    found = result["layers"] if result else ()
    rows = []
    for pattern, part in PARTS.items() if found else ():
        layers = [row for row in found if re.fullmatch(pattern, row["layer"])]
        whole, shipped = (
            sum(row["milliseconds"][file] for row in layers) for file in ("float32", "bundle")
        )
        rows.append((part, f"{whole:.2f}", f"{shipped:.2f}", f"{whole / shipped:.2f}"))
    header = (f"part{_on(result)}", "float32 ms", "as shipped ms", "times faster")
    return notes.noted(header, rows, result)


def start_table(results: Sequence[Result]) -> str:
    """README: what a first caption costs in a new process."""
    result = notes.newest(results, "artifact")
    rows = [
        (row["what"], f"{row['seconds']:.2f}", f"{row['megabytes']:.0f}")
        for row in (result["starts"] if result else ())
    ]
    return notes.noted(
        (f"in a new process{_on(result)}", "seconds", "peak memory, MB"), rows, result
    )


TABLES: dict[str, Callable[[Sequence[Result]], str]] = {
    "bytes": bytes_table,
    "parity": parity_table,
    "latency": latency_table,
    "profile": profile_table,
    "start": start_table,
}
