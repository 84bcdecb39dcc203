"""The demo: its sample format, and how answers are judged."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmllm.runtime import demo

CREDIT = {"source": "made here", "author": "nobody", "licence": "CC0-1.0"}


def write(folder: Path, **changes: Any) -> Path:
    Image.new("RGB", (20, 20), "red").save(folder / "a.png")
    Image.new("RGB", (20, 20), "blue").save(folder / "b.png")
    first = {
        "file": "a.png",
        "title": "red",
        **CREDIT,
        "trials": [
            {"task": "caption", "expected": ["Red."]},
            {"task": "ask", "question": "what colour?", "expected": ["red"]},
            {"task": "search", "question": "red"},
        ],
    }
    second = {"file": "b.png", "title": "words", **CREDIT, "trials": [{"task": "read"}]}
    content = {"schema_version": 1, "pictures": [first | changes, second]}
    (folder / "sample.json").write_text(json.dumps(content))
    return folder


def test_the_sample_is_read_with_its_credits(tmp_path: Path):
    first, second = demo.load_sample(write(tmp_path))
    assert first.title == "red"
    assert first.credit == "nobody, made here, CC0-1.0"
    assert first.trials[0] == demo.Trial("caption", "", "en", ("Red.",))
    assert second.trials == (demo.Trial("read", "", "en", ()),)


def test_every_task_is_tried_and_judged(tmp_path: Path, model, monkeypatch):
    monkeypatch.setattr(model, "caption", lambda image, language: " red ")
    monkeypatch.setattr(model, "answer", lambda image, question: "blue")
    rows = demo.run(model, demo.load_sample(write(tmp_path)))
    assert [row.trial.task for row in rows] == ["caption", "ask", "search", "read"]
    # Only one picture is searched: the other is there to be read.
    assert [row.good for row in rows] == [True, False, True, None]
    assert rows[2].answer == "red"
    assert demo.summary(rows) == "2 of 3 answers as expected."


def test_the_page_shows_answers_and_what_was_expected(tmp_path: Path, model, monkeypatch):
    monkeypatch.setattr(model, "answer", lambda image, question: "blue")
    rows = demo.run(model, demo.load_sample(write(tmp_path)))
    demo.write_page(tmp_path / "demo.html", rows, "tiny")
    text = (tmp_path / "demo.html").read_text()
    assert text.count("data:image/") == 4
    assert "expected: red" in text
    assert "a.png: nobody, made here, CC0-1.0" in text
    assert "Model: tiny" in text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trials": [{"task": "dance"}]}, "task must be one of caption, read, ask, search"),
        ({"trials": [{"task": "ask"}]}, "field 'question' is missing"),
        ({"file": "../a.png"}, "file must be a plain name"),
        ({"trials": 3}, "damaged"),
    ],
)
def test_a_sample_of_another_form_is_refused(tmp_path: Path, changes: dict, reason: str):
    with pytest.raises(ValueError, match=reason):
        demo.load_sample(write(tmp_path, **changes))


@pytest.mark.parametrize("field", ["author", "source", "licence", "title"])
def test_a_picture_needs_its_attribution(tmp_path: Path, field: str):
    content = json.loads((write(tmp_path) / "sample.json").read_text())
    del content["pictures"][0][field]
    (tmp_path / "sample.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"field '{field}' is missing"):
        demo.load_sample(tmp_path)


def test_a_missing_picture_or_sample_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="sample.json is missing"):
        demo.load_sample(tmp_path)
    write(tmp_path)
    (tmp_path / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.png is missing"):
        demo.load_sample(tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": 2, "pictures": []}', "[]"])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str):
    (tmp_path / "sample.json").write_text(text)
    with pytest.raises(ValueError, match="damaged"):
        demo.load_sample(tmp_path)
