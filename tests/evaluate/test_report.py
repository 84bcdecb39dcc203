"""Documents hold the tables of the committed results; reports are written whole."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmllm.evaluate import benchmark, provenance, report, tables
from mmllm.evaluate.tasks import Row

DOCUMENT = "before\n<!-- table:scores -->\nold\n<!-- /table -->\nafter\n"


@pytest.fixture
def result(corpora: Any, oracle: Any) -> dict[str, Any]:
    """Returns a result that counts as a full one."""
    measured = benchmark.run(
        oracle(wrong=[3]),
        (Row("vqa", "composites", "test"), Row("caption", "emoji", "style_out")),
        corpora=corpora,
        report=lambda line: None,
    )
    return measured | {"mode": "full", "model": measured["model"] | {"name": tables.SHIPPED}}


@pytest.fixture
def repository(tmp_path: Path, result: dict[str, Any]) -> Path:
    """Returns a folder with documents and one result."""
    benchmark.write(result, tmp_path / report.RESULTS / "oracle.json")
    (tmp_path / "README.md").write_text(DOCUMENT)
    (tmp_path / "PAPER.md").write_text("no table\n")
    return tmp_path


def test_the_committed_documents_show_the_committed_results():
    root = provenance.REPOSITORY
    assert report.stale(root) == [], "run `make tables` and commit the documents"


def test_only_what_stands_between_the_marks_changes(result: dict[str, Any]):
    text = report.render(DOCUMENT, [result])
    assert text == DOCUMENT.replace("old\n", tables.scores_table([result]))
    assert report.render(text, [result]) == text


def test_a_table_that_nothing_draws_stays(result: dict[str, Any]):
    text = DOCUMENT.replace("scores", "ablations")
    assert report.render(text, [result]) == text


def test_make_tables_rewrites_stale_documents_only(repository: Path, capsys):
    assert report.stale(repository) == ["README.md"]
    assert report.main(repository) == 0
    assert report.stale(repository) == []
    assert ".750" in (repository / "README.md").read_text()
    assert report.main(repository) == 0
    assert capsys.readouterr().out.splitlines() == [
        "rewrote the tables of README.md",
        "the tables are up to date",
    ]


def test_smoke_results_never_reach_a_table(repository: Path, result: dict[str, Any]):
    benchmark.write(result | {"mode": "smoke"}, repository / report.RESULTS / "oracle.json")
    assert report.load_results(repository / report.RESULTS) == []
    report.main(repository)
    assert f"| {tables.DASH} |" in (repository / "README.md").read_text()


def test_a_damaged_result_is_named(tmp_path: Path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json is not JSON"):
        report.load_results(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps({"mode": "full"}))
    with pytest.raises(ValueError, match=r"a\.json is no result file"):
        report.load_results(tmp_path)


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
    table = tables.benchmark_table(result)
    assert len(table.splitlines()) == 2 + sum(len(row["metrics"]) for row in result["rows"])
    assert table in text
    assert "![losses](loss.png)" in text
