"""The format of the sample pictures."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmllm.runtime import sample

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
    first, second = sample.load(write(tmp_path))
    assert first.title == "red"
    assert first.credit == "nobody, made here, CC0-1.0"
    assert first.trials[0] == sample.Trial("caption", "", "en", ("Red.",))
    assert second.trials == (sample.Trial("read", "", "en", ()),)


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
        sample.load(write(tmp_path, **changes))


@pytest.mark.parametrize("field", ["author", "source", "licence", "title"])
def test_a_picture_needs_its_attribution(tmp_path: Path, field: str):
    content = json.loads((write(tmp_path) / "sample.json").read_text())
    del content["pictures"][0][field]
    (tmp_path / "sample.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"field '{field}' is missing"):
        sample.load(tmp_path)


def test_a_missing_picture_or_sample_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="sample.json is missing"):
        sample.load(tmp_path)
    write(tmp_path)
    (tmp_path / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.png is missing"):
        sample.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": 2, "pictures": []}', "[]"])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str):
    (tmp_path / "sample.json").write_text(text)
    with pytest.raises(ValueError, match="damaged"):
        sample.load(tmp_path)
