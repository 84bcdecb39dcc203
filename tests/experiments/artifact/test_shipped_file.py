"""What the artifact's result says: every byte and how much it saves, and a real first caption."""

from pathlib import Path

from experiments.artifact import shipped_file
from mmllm import bundle
from mmllm.runtime import model


def test_packed_weights_are_compared_with_float32_and_nothing_else_is():
    file = (Path(model.locate("nano")) / bundle.LITERT).read_bytes()
    rows = shipped_file.explained(file)
    assert sum(row["bytes"] for row in rows) == len(file)
    times = {(row["part"], row["type"]): row["times"] for row in rows}
    assert times["encoder", "INT2"] == 16.0
    assert times["decoder", "INT4"] == 8.0
    assert times["pretrained backbone", "INT8"] == 4.0
    assert times["scales", "FLOAT32"] is times["graph", "-"] is times["norms", "FLOAT32"] is None


def test_a_first_caption_needs_no_jax_and_little_memory():
    start = shipped_file.first_caption(Path(model.locate("nano")), starts=1)
    assert 0 < start["seconds"] < 60  # that a process ran, not how fast
    assert 20 < start["megabytes"] < 400
