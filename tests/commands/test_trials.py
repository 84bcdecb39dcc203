"""The trials of the demo: how answers are judged, and the page of them."""

from pathlib import Path

from mmllm.commands import trials
from mmllm.runtime import sample
from tests.runtime.test_sample import write


def test_every_task_is_tried_and_judged(tmp_path: Path, loaded, monkeypatch):
    monkeypatch.setattr(loaded, "caption", lambda image, language: " red ")
    monkeypatch.setattr(loaded, "answer", lambda image, question: "blue")
    rows = trials.run(loaded, sample.load(write(tmp_path)))
    assert [row.trial.task for row in rows] == ["caption", "ask", "search", "read"]
    # Only one picture is searched: the other is there to be read.
    assert [row.good for row in rows] == [True, False, True, None]
    assert rows[2].answer == "red"
    assert trials.summary(rows) == "2 of 3 answers as expected."


def test_the_page_shows_answers_and_what_was_expected(tmp_path: Path, loaded, monkeypatch):
    monkeypatch.setattr(loaded, "answer", lambda image, question: "blue")
    rows = trials.run(loaded, sample.load(write(tmp_path)))
    trials.write_page(tmp_path / "demo.html", rows, "tiny")
    text = (tmp_path / "demo.html").read_text()
    assert text.count("data:image/") == 4
    assert "expected: red" in text
    assert "a.png: nobody, made here, CC0-1.0" in text
    assert "Model: tiny" in text
