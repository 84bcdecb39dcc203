"""Reports are written whole, with their table and pictures."""

from pathlib import Path
from typing import Any

import pytest

from mmllm.evaluate import benchmark, report, scores
from mmllm.evaluate.tasks import Row


@pytest.fixture
def result(corpora: Any, oracle: Any) -> dict[str, Any]:
    """Returns a result that counts as a full one."""
    measured = benchmark.run(
        oracle(wrong=[3]),
        (Row("vqa", "composites", "test"), Row("caption", "emoji", "style_out")),
        corpora=corpora,
        report=lambda line: None,
    )
    return measured | {"mode": "full", "model": measured["model"] | {"name": "nano"}}


@pytest.mark.parametrize("engine", ["litert", "jax"])
def test_a_report_holds_the_table_and_its_pictures(
    result: dict[str, Any], tmp_path: Path, engine: str
):
    result = result | {"model": result["model"] | {"engine": engine}}
    losses = tmp_path / "metrics.jsonl"
    losses.write_text('{"step": 1, "loss/total": 2.0}\n{"step": 2, "loss/total": 1.0}\n')
    written = report.write_report(result, tmp_path / "report", losses)
    assert [path.name for path in written] == ["report.md", "scores.png", "loss.png"]
    assert all(path.stat().st_size > 0 for path in written)
    text = written[0].read_text()
    assert text.startswith("# nano, full benchmark")
    table = scores.benchmark_table(result)
    assert len(table.splitlines()) == 2 + sum(len(row["metrics"]) for row in result["rows"])
    assert table in text
    assert "![losses](loss.png)" in text
