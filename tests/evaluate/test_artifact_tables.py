"""Tables about what ships, from results made by hand."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mmllm.evaluate import artifact_tables, benchmark
from tests.evaluate.test_tables import row, score


def measured(
    name: str, engine: str, r1: float, exact: float, cer: float, accuracy: float
) -> dict[str, Any]:
    rows = [
        row("retrieval", {"image_to_text_r1": score(r1)}, {}, counts={"names": 400}),
        row("caption", {"exact": score(exact)}, {}),
        row("lines", {"cer": score(cer)}, {}, corpus="ocr_lines", split="unseen_print"),
        row("vqa", {"accuracy": score(accuracy)}, {}, corpus="composites", split="test"),
    ]
    model = {"name": name, "engine": engine, "files": {"weights": "0f"}}
    return {"kind": "benchmark", "model": model, "rows": rows}


def test_what_is_kept_is_the_mean_of_what_each_task_keeps():
    results = [
        measured("nano_float", "jax", 0.5, 0.4, 0.2, 0.5),
        measured("nano", "litert", 0.4, 0.4, 0.2, 0.5),
        measured("nano", "jax", 0.1, 0.1, 0.1, 0.1),
    ]
    table = artifact_tables.kept_table(results)
    assert "| search | image→text R@1, unseen artists | 0.500 | 0.400 | 80.0% |" in table
    assert "| reading | 1 - CER, unseen print fonts, noisy | 0.800 | 0.800 | 100.0% |" in table
    assert (
        table.splitlines()[-1]
        == "| **mean** | of the scores; of what is kept | **0.550** | **0.525** | **95.0%** |"
    )


def test_the_engines_stand_side_by_side_and_may_not_lie_apart():
    lite = measured("nano", "litert", 0.5, 0.4, 0.2, 0.5)
    table = artifact_tables.engines_table([lite, measured("nano", "jax", 0.51, 0.4, 0.2, 0.5)])
    lines = table.splitlines()[2:]
    assert len(lines) == 4
    assert lines[0].endswith("| .500 ± .010 | .510 ± .010 | -0.010 |")
    other = measured("nano", "jax", 0.1, 0.1, 0.1, 0.1)
    other["model"]["files"] = {"weights": "another"}
    assert len(artifact_tables.engines_table([lite, other]).splitlines()) == 3  # a row of dashes
    with pytest.raises(ValueError, match="exact of caption.* is 0.4 through LiteRT and 0.43"):
        artifact_tables.engines_table([lite, measured("nano", "jax", 0.5, 0.43, 0.2, 0.5)])


def test_a_task_is_a_row_of_the_benchmark():
    names = {each.name for each in benchmark.ROWS}
    assert {name for name, _ in artifact_tables.TASKS.values()} <= names


def test_rows_of_one_model_are_joined_and_compared_with_their_own_starts():
    def trained(name: str, start: str | None, value: float) -> dict[str, Any]:
        scores = {key: score(value) for key, _ in artifact_tables.TASKS.values()}
        return {"row": name, "start": start, "bytes": 4_860_000, "scores": scores, "average": value}

    rows = [
        trained("int2", None, 0.5),
        trained("int2", "b", 0.7),
        trained("float_start", None, 1.0),
        trained("float_start", "b", 0.875),
        trained("half_int4", "c", 0.6),
    ]
    lines = artifact_tables.quantization_table([{"kind": "quantization", "rows": rows}])
    first, second, third = lines.splitlines()[2:]
    assert first.startswith("| float | the model that all others start from | 4.86 | .938 ± .088 |")
    assert first.endswith("| 100.0% | 2 |")
    assert second.endswith("| .600 ± .141 | 65.0% | 2 |")
    assert third.endswith("| .600 | — | 1 |")


def test_bytes_add_up_to_the_file():
    rows = [
        {"part": "encoder", "type": "INT2", "weights": 160, "bytes": 40, "times": 16.0},
        {"part": "graph", "type": "-", "weights": 0, "bytes": 60, "times": None},
    ]
    result = {"kind": "artifact", "bytes": 100, "float32_bytes": 700, "rows": rows}
    lines = artifact_tables.bytes_table([result]).splitlines()
    assert lines[2:] == [
        "| encoder | INT2 | 160 | 40 | 16.0 |",
        "| graph | - | 0 | 60 | — |",
        "| **all** | — | — | **100** | **7.00** |",
    ]


def test_parity_shows_the_worst_layer_every_output_and_the_tokens():
    far = {"name": "b", "samples": 4, "median": 2e-4, "largest": 3e-3}
    near = {"name": "a", "samples": 4, "median": 1e-6, "largest": 4e-3}
    parity = {
        "layers": [near, far],
        "outputs": [{"name": "prefill", "samples": 8, "median": 1e-5, "largest": 2e-2}],
        "answers": 12,
        "tokens": {"same image tokens": 0.995},
    }
    lines = artifact_tables.parity_table([{"kind": "artifact", "parity": parity}]).splitlines()
    assert lines[2] == "| 2 layers, the worst: b | the same input | 4 | 2.0e-04 | 3.0e-03 |"
    assert lines[3].startswith("| prefill | the same input | 8 |")
    assert lines[4] == "| greedy captions | same image tokens | 12 | 99.5% the same | — |"


TIMED_ON = {"device": {"processor": "Example 7"}}


def test_times_and_starts():
    timed = {
        "threads": 1,
        "stage": "prefill",
        "milliseconds": {"float32": 2.0, "int8": 1.5, "bundle": 1.0},
        "speedup": {"float32": 1.0, "int8": 1.333, "bundle": 2.0},
    }
    table = artifact_tables.latency_table([{"kind": "latency", "rows": [timed], **TIMED_ON}])
    assert table.startswith("| stage (Example 7) | threads |")
    assert table.splitlines()[-1] == "| prefill | 1 | 2.00 | 1.50 | 1.00 | 2.00 |"
    other = {"kind": "latency", "rows": [timed | {"speedup": {"bundle": 1.5}}]}
    older = other | {"device": {"processor": "Example 6"}}
    table = artifact_tables.latency_table([older, {**other, "rows": [timed], **TIMED_ON}])
    assert table.splitlines()[0].endswith("| times faster | on Example 6 |")
    assert table.splitlines()[-1] == "| prefill | 1 | 2.00 | 1.50 | 1.00 | 2.00 | 1.50 |"
    start = {"what": "first caption", "seconds": 0.41, "megabytes": 93.2}
    table = artifact_tables.start_table([{"kind": "artifact", "start": [start], **TIMED_ON}])
    assert table.splitlines()[-1] == "| first caption | 0.41 | 93 |"


@pytest.mark.parametrize("name", artifact_tables.TABLES)
def test_without_results_a_table_is_one_row_of_dashes(name: str):
    header, rule, *rows = artifact_tables.TABLES[name]([]).splitlines()
    assert header.count("|") == rule.count("|") == rows[0].count("|")
    assert len(rows) == 1


def test_the_profile_adds_up_the_layers_of_each_part():
    names = [
        "backbone/stem",
        "backbone/block_3",
        "backbone/block_10",
        "backbone/block_11",
        "encoder/norm",
    ]
    names += ["decoder/block_0", "decoder/block_0.step", "image_embedding", "line_reader"]
    names += ["text_tower/norm", "embed.logits"]
    layers = [{"layer": n, "milliseconds": {"float32": 1.0, "bundle": 0.5}} for n in names]
    result = {"kind": "latency", "layers": layers, **TIMED_ON}
    lines = artifact_tables.profile_table([result]).splitlines()
    assert len(lines) == 2 + len(artifact_tables.PARTS)
    assert lines[2] == (
        "| backbone: first convolution, blocks 0 to 3, float | 2.00 | 1.00 | 2.00 |"
    )
    assert all(line.endswith("| 1.00 | 0.50 | 2.00 |") for line in lines[3:])


def test_every_measured_layer_but_the_lookup_belongs_to_a_part():
    path = Path(__file__).parents[2] / "experiments" / "results" / "latency.json"
    layers = {row["layer"] for row in json.loads(path.read_text())["layers"]}
    known = {name for name in layers for part in artifact_tables.PARTS if re.fullmatch(part, name)}
    assert layers - known == {"embed"}
