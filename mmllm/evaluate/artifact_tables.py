"""Tables about what ships: what rounding costs, where the bytes are, how fast and exact it is."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmllm.evaluate import tables
from mmllm.evaluate.tables import Result

WHOLE = "nano_float"
ENGINES_APART = 0.02
"""How far a share may differ between two engines that run the same codes: about the deviation of a
search among 469 pictures, for roundings that fall the other way."""
TASKS = {
    "search": ("retrieval/emoji/style_out", "image_to_text_r1"),
    "captions": ("caption/emoji/style_out", "exact"),
    "reading": ("lines/ocr_lines/unseen_print", "cer"),
    "questions": ("vqa/composites/test", "accuracy"),
}
"""The score that stands for each of the four tasks; of an error rate, what it leaves of one."""
QUANTIZED = {
    "float_start": ("float", "the model that all others start from"),
    "float": ("float", "trained on as long as the others"),
    "int8_ptq": ("8", "rounded only"),
    "int8": ("8", "trained, taught by the float model"),
    "int8_static_ptq": ("8", "rounded only, activations by one range a layer"),
    "int8_static": ("8", "trained, taught, activations by one range a layer"),
    "int4_ptq": ("4", "rounded only"),
    "int4": ("4", "trained, taught"),
    "int2_ptq": ("2", "rounded only"),
    "int2_untaught": ("2", "trained without the float model"),
    "int2": ("2", "trained, taught"),
    "ternary": ("2", "ternary grid"),
    "seq": ("2", "balanced grid without zero (SEQ)"),
    "int2_rms": ("2", "scale: root mean square, not learned"),
    "int2_absmean": ("2", "scale: mean of absolute values, not learned"),
    "int2_start_rms": ("2", "learned scale, from the root mean square"),
    "int2_start_absmean": ("2", "learned scale, from the mean of absolute values"),
    "int2_quarter": ("2", "a quarter of the steps"),
    "int2_half": ("2", "half of the steps"),
    "int2_late_half": ("2", "as many steps, the first half in float"),
    "int2_long": ("2", "five times the steps"),
    "int2_frozen": ("2", "weights that oscillate are frozen in the second half"),
    "int2_embed4": ("2, 4", "token embedding at 4"),
    "int2_decoder4": ("2, 4", "token embedding and decoder at 4"),
    "mixed_ptq": ("2, 4", "the policy that ships, rounded only"),
    "mixed_stem8": ("2, 4", "the policy that ships, its backbone at 8"),
    "mixed": ("2, 4", "the policy that ships"),
    "mixed_tail4": ("2, 4", "the same, the backbone's last five blocks at 4, taught"),
    "mixed_tail2_rounded": ("2, 4", "the same, the backbone's last five blocks at 2, rounded only"),
    "mixed_tail2": ("2, 4", "the same, the backbone's last five blocks at 2, taught"),
    "half_float": ("float", "two thirds of the width"),
    "half_int4": ("4", "two thirds of the width: as many bytes behind the backbone as at 2"),
}
"""Rows of the quantization experiment: bits of the transformer, and what is special."""


PARTS = {
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


def latest(results: Sequence[Result], kind: str) -> Result | None:
    """The last result of a kind; None if there is none."""
    found = [result for result in results if result["kind"] == kind]
    return found[-1] if found else None


def task_scores(result: Result) -> dict[str, float]:
    """The score of each of TASKS in a benchmark."""
    rows = {row["name"]: row["metrics"] for row in result["rows"]}
    values = {task: rows[row][metric]["value"] for task, (row, metric) in TASKS.items()}
    return {t: 1.0 - v if TASKS[t][1] in tables.ERRORS else v for t, v in values.items()}


def kept_table(results: Sequence[Result]) -> str:
    """README and PAPER: what the shipped model keeps of the float one's scores."""
    whole = tables.latest_benchmark(results, WHOLE, "jax")
    shipped = tables.latest_benchmark(results)
    header = ("task", "score", "float", "as shipped", "kept")
    if whole is None or shipped is None:
        return tables.markdown(header, [])
    before, after = task_scores(whole), task_scores(shipped)
    rows = []
    for task, (row, metric) in TASKS.items():
        name = (
            f"1 - {tables.title(metric).removesuffix(' ↓')}"
            if metric in tables.ERRORS
            else tables.title(metric)
        )
        kept = after[task] / before[task]
        place_ = tables.SPLITS.get(row.split("/")[2], row)
        rows.append(
            (task, f"{name}, {place_}", f"{before[task]:.3f}", f"{after[task]:.3f}", f"{kept:.1%}")
        )
    means = [sum(scores.values()) / len(scores) for scores in (before, after)]
    mean = sum(after[task] / before[task] for task in TASKS) / len(TASKS)
    rows.append(
        (
            "**mean**",
            "of the scores; of what is kept",
            f"**{means[0]:.3f}**",
            f"**{means[1]:.3f}**",
            f"**{mean:.1%}**",
        )
    )
    return tables.markdown(header, rows)


def engines_table(results: Sequence[Result]) -> str:
    """PAPER: the headline scores of what ships through LiteRT and through JAX, from one bundle.

    Raises:
      ValueError: a share that differs by more than ENGINES_APART.
    """
    header = ("task", "test", "LiteRT", "JAX", "difference")
    lite, jaxed = (tables.latest_benchmark(results, engine=name) for name in ("litert", "jax"))
    if lite and jaxed and lite["model"]["files"] != jaxed["model"]["files"]:
        jaxed = None  # of another bundle: to be measured anew
    by_lite = {(row["name"], metric): row for row, metric in tables.headlines(lite)}
    rows = []
    for row, metric in tables.headlines(jaxed):
        if (row["name"], metric) not in by_lite:
            continue
        found = by_lite[row["name"], metric]
        one, other = found["metrics"][metric], row["metrics"][metric]
        apart = one["value"] - other["value"]
        if one["unit"] == "share" and abs(apart) > ENGINES_APART:
            raise ValueError(
                f"{metric} of {row['name']} is {one['value']} through LiteRT and {other['value']} "
                f"through JAX: more than {ENGINES_APART} apart"
            )
        scores = tables.number(one, with_std=True), tables.number(other, with_std=True)
        rows.append((tables.label(row, metric), tables.place(row), *scores, f"{apart:+.3f}"))
    return tables.markdown(header, rows)


def _over_seeds(values: Sequence[float]) -> str:
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.3f}".removeprefix("0")
    spread = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return f"{mean:.3f} ± {spread:.3f}".replace("0.", ".")


def quantization_table(results: Sequence[Result]) -> str:
    """PAPER: bits, grids, scales and policies; deviations are those between runs.

    Runs may have different float starts; "kept" compares the mean of each with that of its own.
    """
    result = latest(results, "quantization")
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in result["rows"] if result else ():
        found.setdefault(row["row"], []).append(row)
    whole = {row.get("start"): row["average"] for row in found.get("float_start", ())}
    rows = []
    for name, (bits, what) in QUANTIZED.items():
        if name not in found:
            continue
        runs = found[name]
        scores = [
            _over_seeds([each["scores"][row]["value"] for each in runs])
            for row, _ in TASKS.values()
        ]
        average = _over_seeds([each["average"] for each in runs])
        kept = [each["average"] / whole[s] for each in runs if (s := each.get("start")) in whole]
        share = f"{sum(kept) / len(kept):.1%}" if kept else tables.DASH
        size = f"{runs[0]['bytes'] / 1e6:.2f}"
        rows.append((bits, what, size, *scores, average, share, str(len(runs))))
    heads = [f"{task}: {tables.title(metric)}" for task, (_, metric) in TASKS.items()]
    return tables.markdown(("bits", "model", "MB", *heads, "mean", "kept", "runs"), rows)


def bytes_table(results: Sequence[Result]) -> str:
    """README and PAPER: every byte of the LiteRT file."""
    result = latest(results, "artifact")
    rows = [
        (
            row["part"],
            row["type"],
            f"{row['weights']:,}",
            f"{row['bytes']:,}",
            f"{row['times']:.1f}",
        )
        if row["times"]
        else (row["part"], row["type"], f"{row['weights']:,}", f"{row['bytes']:,}", tables.DASH)
        for row in (result["rows"] if result else ())
    ]
    if result:
        whole, size = result["float32_bytes"], result["bytes"]
        rows.append(
            ("**all**", tables.DASH, tables.DASH, f"**{size:,}**", f"**{whole / size:.2f}**")
        )
    return tables.markdown(("part", "type", "numbers", "bytes", "times smaller than float32"), rows)


def parity_table(results: Sequence[Result]) -> str:
    """PAPER: the LiteRT file against JAX."""
    result = latest(results, "artifact")
    header = ("compared", "with", "n", "median error", "largest")
    if result is None:
        return tables.markdown(header, [])
    parity = result["parity"]
    worst = max(parity["layers"], key=lambda row: row["median"])
    shown = [
        (f"{len(parity['layers'])} layers, the worst: {worst['name']}", worst),
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
        ("greedy captions", name, str(parity["answers"]), f"{share:.1%} the same", tables.DASH)
        for name, share in parity["tokens"].items()
    ]
    return tables.markdown(header, rows)


def _on(result: Result | None) -> str:
    """Which processor timed a result, to stand in a table's header."""
    return f" ({result['device']['processor']})" if result else ""


def latency_table(results: Sequence[Result]) -> str:
    """README and PAPER: milliseconds of each stage in LiteRT, and the gain on other processors."""
    timed = [result for result in results if result["kind"] == "latency"][::-1]
    gains = [
        {(row["stage"], row["threads"]): f"{row['speedup']['bundle']:.2f}" for row in each["rows"]}
        for each in timed
    ]
    rows = [
        (
            row["stage"],
            str(row["threads"]),
            *(f"{row['milliseconds'][file]:.2f}" for file in ("float32", "int8", "bundle")),
            *(gain.get((row["stage"], row["threads"]), tables.DASH) for gain in gains),
        )
        for row in (timed[0]["rows"] if timed else ())
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
    return tables.markdown(header, rows)


def profile_table(results: Sequence[Result]) -> str:
    """PAPER: milliseconds of each part by itself, one thread."""
    result = latest(results, "latency")
    found = result["layers"] if result else ()
    rows = []
    for pattern, part in PARTS.items() if found else ():
        layers = [row for row in found if re.fullmatch(pattern, row["layer"])]
        whole, shipped = (
            sum(row["milliseconds"][file] for row in layers) for file in ("float32", "bundle")
        )
        rows.append((part, f"{whole:.2f}", f"{shipped:.2f}", f"{whole / shipped:.2f}"))
    header = (f"part{_on(result)}", "float32 ms", "as shipped ms", "times faster")
    return tables.markdown(header, rows)


def start_table(results: Sequence[Result]) -> str:
    """README: what a first caption costs in a new process."""
    result = latest(results, "artifact")
    rows = [
        (row["what"], f"{row['seconds']:.2f}", f"{row['megabytes']:.0f}")
        for row in (result["start"] if result else ())
    ]
    return tables.markdown((f"in a new process{_on(result)}", "seconds", "peak memory, MB"), rows)


TABLES: dict[str, Callable[[Sequence[Result]], str]] = {
    "kept": kept_table,
    "quantization": quantization_table,
    "bytes": bytes_table,
    "parity": parity_table,
    "engines": engines_table,
    "latency": latency_table,
    "profile": profile_table,
    "start": start_table,
}
