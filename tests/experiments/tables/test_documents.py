"""Documents hold the tables of the committed results."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.tables import benchmark as tables
from experiments.tables import documents
from mmllm.evaluate import benchmark, provenance, scores
from tests.evaluate.test_scores import RESULT

DOCUMENT = "before\n<!-- table:scores -->\nold\n<!-- /table -->\nafter\n"


@pytest.fixture
def result() -> dict[str, Any]:
    """Returns a result that counts as a full one."""
    return {**RESULT, "mode": "full"}


@pytest.fixture
def repository(tmp_path: Path, result: dict[str, Any]) -> Path:
    """Returns a folder with documents and one result."""
    benchmark.write(result, tmp_path / documents.RESULTS / "oracle.json")
    (tmp_path / "README.md").write_text(DOCUMENT)
    (tmp_path / "PAPER.md").write_text("no table\n")
    return tmp_path


def test_the_committed_documents_show_the_committed_results():
    root = provenance.REPOSITORY
    assert documents.outdated(root) == [], "run `make tables` and commit the documents"


def test_only_what_stands_between_the_marks_changes(result: dict[str, Any]):
    text = documents.render(DOCUMENT, [result])
    assert text == DOCUMENT.replace("old\n", tables.scores_table([result]))
    assert documents.render(text, [result]) == text


def test_a_table_that_nothing_draws_stays(result: dict[str, Any]):
    text = DOCUMENT.replace("scores", "ablations")
    assert documents.render(text, [result]) == text


def test_make_tables_rewrites_stale_documents_only(repository: Path, capsys):
    assert documents.outdated(repository) == ["README.md"]
    assert documents.main(repository) == 0
    assert documents.outdated(repository) == []
    assert ".750" in (repository / "README.md").read_text()
    assert documents.main(repository) == 0
    assert capsys.readouterr().out.splitlines() == [
        "rewrote the tables of README.md",
        "the tables are up to date",
    ]


def test_smoke_results_never_reach_a_table(repository: Path, result: dict[str, Any]):
    benchmark.write(result | {"mode": "smoke"}, repository / documents.RESULTS / "oracle.json")
    assert documents.load_results(repository / documents.RESULTS) == []
    documents.main(repository)
    assert f"| {scores.DASH} |" in (repository / "README.md").read_text()


def test_a_damaged_result_is_named(tmp_path: Path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json is not JSON"):
        documents.load_results(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps({"mode": "full"}))
    with pytest.raises(ValueError, match=r"a\.json is no result file"):
        documents.load_results(tmp_path)
