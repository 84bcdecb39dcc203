"""`mmllm caption`, `read` and `ask`."""

import json
from pathlib import Path

import pytest
from PIL import Image


def test_a_caption_is_one_line(command, folder: Path):
    done = command("caption", folder / "a.png")
    assert done.code == 0
    assert done.err == ""
    assert len(done.out.splitlines()) == 1


def test_several_pictures_are_named(command, folder: Path):
    done = command(
        "caption", folder / "a.png", folder / "text.png", "--language", "de", "--beam", 2
    )
    assert done.code == 0
    first, second = done.out.splitlines()
    assert first.startswith(f"{folder / 'a.png'}: ")
    assert second.startswith(f"{folder / 'text.png'}: ")


def test_caption_as_json(command, folder: Path):
    done = command("caption", folder / "a.png", "--json")
    (row,) = json.loads(done.out)
    assert row.keys() == {"image", "language", "caption", "score"}
    assert 0 <= row["score"] <= 1


def test_ask_takes_the_last_word_as_the_question(command, folder: Path):
    done = command("ask", folder / "a.png", folder / "text.png", "how many circles?", "--json")
    rows = json.loads(done.out)
    assert [row["image"] for row in rows] == [str(folder / "a.png"), str(folder / "text.png")]
    assert {row["question"] for row in rows} == {"how many circles?"}


def test_read_gives_boxes_inside_the_picture(command, folder: Path):
    done = command("read", folder / "text.png", "--json")
    (row,) = json.loads(done.out)
    for line in row["lines"]:
        x0, y0, x1, y1 = line["box"]
        assert 0 <= x0 < x1 <= 200
        assert 0 <= y0 < y1 <= 40


def test_a_picture_without_text_says_so(command, tmp_path: Path):
    Image.new("RGB", (40, 40), "white").save(tmp_path / "blank.png")
    done = command("read", tmp_path / "blank.png")
    assert (done.code, done.out) == (0, "(no text found)\n")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "does not exist"),
        (b"", "empty"),
        (b"hello, I am no picture", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
    ],
)
@pytest.mark.parametrize("name", ["caption", "read", "ask"])
def test_a_bad_picture_costs_one_line_and_not_the_others(
    command, folder: Path, name: str, content: bytes | None, reason: str
):
    bad = folder / "bad.png"
    if content is not None:
        bad.write_bytes(content)
    question = ["what is this?"] if name == "ask" else []
    done = command(name, folder / "text.png", bad, *question)
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert reason in done.err
    assert str(bad) not in done.out
    alone = command(name, bad, *question, "--json")
    assert alone.code == 1
    assert reason in json.loads(alone.out)[0]["error"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["caption", "a.png", "--language", "xx"], "language must be one of en, de, got 'xx'"),
        (["ask", "a.png", ""], "question must not be empty"),
        (["ask", "a.png", "x" * 10_000], "question must have at most 500 characters, got 10000"),
        (["ask", "a.png", "a\x1b[2Jb"], "control characters, got U+001B"),
    ],
)
def test_wrong_requests_take_one_line(command, folder: Path, arguments: list[str], reason: str):
    arguments[1] = str(folder / arguments[1])
    done = command(*arguments)
    assert (done.code, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1
    assert reason in done.err


def test_a_beam_out_of_range_is_wrong_usage(command, folder: Path):
    done = command("caption", folder / "a.png", "--beam", 9)
    assert (done.code, done.out) == (2, "")
    assert "--beam must be 1 to 8, got 9" in done.err


def test_a_missing_model_is_named(command, folder: Path, tmp_path: Path):
    done = command("caption", folder / "a.png", "--model", tmp_path / "none", model=False)
    assert done.code == 1
    assert "no model" in done.err
