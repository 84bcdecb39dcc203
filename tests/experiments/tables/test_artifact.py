"""Tables about what ships, from results made by hand."""

import re
from typing import Any

import pytest

from experiments import rows as rows_lib
from experiments.tables import artifact


def of(kind: str, **row: Any) -> list[dict[str, Any]]:
    """Results of one row."""
    return [{"kind": kind, "rows": [{"row": "nano", "date": "2026-01-01", **row}]}]


def test_bytes_add_up_to_the_file():
    rows = [
        {"part": "encoder", "type": "INT2", "weights": 160, "bytes": 40, "times": 16.0},
        {"part": "graph", "type": "-", "weights": 0, "bytes": 60, "times": None},
    ]
    lines = artifact.bytes_table(
        of("artifact", bytes=100, float32_bytes=700, parts=rows)
    ).splitlines()
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
    lines = artifact.parity_table(of("artifact", parity=parity)).splitlines()
    assert lines[2] == "| 2 layers, the worst: b | the same input | 4 | 2.0e-04 | 3.0e-03 |"
    assert lines[3].startswith("| prefill | the same input | 8 |")
    assert lines[4] == "| greedy captions | same image tokens | 12 | 99.5% the same | — |"


NEWER = {"device": {"processor": "Example 7"}, "date": "2026-02-01"}
OLDER = {"device": {"processor": "Example 6"}, "date": "2026-01-01"}


def test_times_and_starts():
    timed = {
        "threads": 1,
        "stage": "prefill",
        "milliseconds": {"float32": 2.0, "int8": 1.5, "bundle": 1.0},
        "speedup": {"float32": 1.0, "int8": 1.333, "bundle": 2.0},
    }
    table = artifact.latency_table(of("latency", stages=[timed], **NEWER))
    assert table.startswith("| stage (Example 7) | threads |")
    assert table.splitlines()[-1] == "| prefill | 1 | 2.00 | 1.50 | 1.00 | 2.00 |"
    older = of("latency", stages=[timed | {"speedup": {"bundle": 1.5}}], **OLDER)
    table = artifact.latency_table([*of("latency", stages=[timed], **NEWER), *older])
    assert table.splitlines()[0].endswith("| times faster | on Example 6 |")
    assert table.splitlines()[-1] == "| prefill | 1 | 2.00 | 1.50 | 1.00 | 2.00 | 1.50 |"
    start = {"what": "first caption", "seconds": 0.41, "megabytes": 93.2}
    table = artifact.start_table(of("artifact", starts=[start], **NEWER))
    assert table.splitlines()[-1] == "| first caption | 0.41 | 93 |"


def test_a_table_says_what_is_to_be_said_of_its_measurement():
    start = {"what": "first caption", "seconds": 0.41, "megabytes": 93.2}
    row = {"starts": [start], "marks": ["local changes"], "stale": True, **NEWER}
    table = artifact.start_table(of("artifact", **row))
    assert table.startswith("| in a new process (Example 7) † (stale) |")
    assert "\n\n†: measured with local changes" in table


@pytest.mark.parametrize("name", artifact.TABLES)
def test_without_results_a_table_is_one_row_of_dashes(name: str):
    header, rule, *rows = artifact.TABLES[name]([]).splitlines()
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
    lines = artifact.profile_table(of("latency", layers=layers, **NEWER)).splitlines()
    assert len(lines) == 2 + len(artifact.PARTS)
    assert lines[2] == (
        "| backbone: first convolution, blocks 0 to 3, float | 2.00 | 1.00 | 2.00 |"
    )
    assert all(line.endswith("| 1.00 | 0.50 | 2.00 |") for line in lines[3:])


def test_every_measured_layer_but_the_lookup_belongs_to_a_part():
    measured = rows_lib.read("latency")["rows"]
    layers = {layer["layer"] for row in measured for layer in row["layers"]}
    known = {name for name in layers for part in artifact.PARTS if re.fullmatch(part, name)}
    assert layers - known == {"embed"}
