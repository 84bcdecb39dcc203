"""`mmllm search`."""

import json
from pathlib import Path

from PIL import Image


def test_pictures_are_ranked(command, folder: Path):
    done = command("search", "a red bus", folder)
    assert done.code == 0
    header, _, *rows = done.out.splitlines()
    assert header.split() == ["rank", "score", "picture"]
    scores = [float(row.split()[1]) for row in rows]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


def test_json_and_top(command, folder: Path):
    found = json.loads(command("search", "a red bus", folder, "--top", 2, "--json").out)
    assert found["pictures"] == 3
    assert len(found["hits"]) == 2
    assert all(Path(hit["image"]).is_file() for hit in found["hits"])


def test_a_page_and_a_contact_sheet_are_written(command, folder: Path, tmp_path: Path):
    page, sheet = tmp_path / "found.html", tmp_path / "found.png"
    done = command("search", "<b>bus</b>", folder, "--html", page, "--png", sheet)
    assert done.code == 0
    text = page.read_text()
    assert text.count("data:image/") == 3
    assert "<b>" not in text
    assert "&lt;b&gt;bus" in text
    with Image.open(sheet) as image:
        assert image.size == (600, 200)


def test_an_unreadable_picture_is_left_out_with_a_warning(command, folder: Path):
    (folder / "bad.png").write_bytes(b"nothing")
    done = command("search", "a red bus", folder)
    assert done.code == 0
    assert "left out: image" in done.err
    assert len(done.out.splitlines()) == 5


def test_wrong_requests_take_one_line(command, folder: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for arguments, reason in (
        (("", folder), "query must not be empty"),
        (("a bus", folder / "none"), "is not a folder"),
        (("a bus", folder / "a.png"), "is not a folder"),
        (("a bus", tmp_path / "empty"), "holds no readable picture"),
    ):
        done = command("search", *arguments)
        assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 1)
        assert reason in done.err
    assert command("search", "a bus", folder, "--top", "0").code == 2
