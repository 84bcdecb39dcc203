"""`mmllm demo`."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def sample(folder: Path) -> Path:
    credit = {"source": "made here", "author": "nobody", "licence": "CC0-1.0"}
    pictures = [
        {
            "file": "a.png",
            "title": "noise",
            **credit,
            "trials": [
                {"task": "caption", "language": "de", "expected": ["nie im Leben"]},
                {"task": "ask", "question": "how many?"},
                {"task": "search", "question": "noise"},
            ],
        },
        {
            "file": "text.png",
            "title": "words",
            **credit,
            "trials": [{"task": "read", "expected": ["hello world"]}],
        },
    ]
    content = {"schema_version": 1, "pictures": pictures}
    (folder / "sample.json").write_text(json.dumps(content))
    return folder


def test_a_table_is_printed_and_a_page_written(command, sample: Path, tmp_path: Path):
    out = tmp_path / "demo.html"
    done = command("demo", "--sample", sample, "--out", out)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split()[:4] == ["task", "picture", "question", "answer"]
    assert [line.split()[0] for line in lines[2:6]] == ["caption", "read", "ask", "search"]
    assert "of 3 answers as expected" in done.out
    page = out.read_text()
    assert page.count("data:image/") == 4
    assert "CC0-1.0" in page


def test_json(command, sample: Path, tmp_path: Path):
    done = command("demo", "--sample", sample, "--out", tmp_path / "demo.html", "--json")
    shown = json.loads(done.out)
    assert [row["task"] for row in shown["rows"]] == ["caption", "ask", "search", "read"]
    assert [row["as_expected"] for row in shown["rows"]][:3] == [False, None, True]


def test_a_missing_sample_takes_one_line(command, tmp_path: Path):
    done = command("demo", "--sample", tmp_path)
    assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 1)
    assert "sample.json is missing" in done.err
