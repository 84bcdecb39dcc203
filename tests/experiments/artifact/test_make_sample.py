"""The sample is drawn by seed from permissive pictures; the one that ships keeps the promises."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments.artifact import make_sample
from mmllm.data import sources
from mmllm.runtime import sample

LARGEST_BYTES = 2_000_000
SPLITS = (
    ("emoji", "style_out"),
    ("emoji", "concept_out"),
    ("ocr_lines", "unseen_print"),
    ("composites", "test"),
    ("easy_vqa", "test"),
)
COUNT = 50


def example(corpus, split, place):
    element = {"id": f"{corpus}/{split}/{place}", "image": np.full((8, 8, 3), place, np.uint8)}
    if corpus == "emoji":
        names = {"languages": ["en", "de"], "captions": [f"thing {place}", f"Ding {place}"]}
        return element | names
    if corpus == "ocr_lines":
        return element | {"text": f"line {place}"}
    pairs = {"questions": ["a?", "b?", "c?"], "answers": ["1", "2", "3"]}
    return element | pairs | ({"caption": f"scene {place}"} if corpus == "composites" else {})


@pytest.fixture
def corpora(tmp_path, monkeypatch):
    """Fifty examples a split, every second one under a licence that asks for more."""
    for corpus in {corpus for corpus, _ in SPLITS}:
        rows = [
            {
                "split": split,
                "id": example(corpus, split, place)["id"],
                "source": f"{corpus} 1.0",
                "author": f"artist of {corpus}",
                "licence": "MIT AND CC-BY-SA-4.0" if place % 2 else "MIT AND CC0-1.0",
            }
            for name, split in SPLITS
            if name == corpus
            for place in range(COUNT)
        ]
        (tmp_path / corpus).mkdir()
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / corpus / sources.ATTRIBUTION_FILE).write_text(text)

    def load(corpus, split, images=True):
        elements = [example(corpus, split, place) for place in range(COUNT)]
        return elements if images else [{"id": element["id"]} for element in elements]

    monkeypatch.setattr(sources, "folder_of", lambda name: tmp_path / name)
    monkeypatch.setattr(sources, "load", load)


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("MIT", True),
        ("Apache-2.0 AND CC-BY-4.0", True),
        ("CC-BY-SA-4.0", False),
        ("MIT AND GPL-2.0-only", False),
        ("OFL-1.1 OR BSD-3-Clause", False),
        ("", False),
    ],
)
def test_every_part_of_a_licence_must_be_permissive(licence, expected):
    assert make_sample.is_permissive(licence) is expected


def test_examples_are_permissive_credited_and_always_the_same(corpora):
    drawn = list(make_sample.permissive("emoji", "style_out", 6))
    again = list(make_sample.permissive("emoji", "style_out", 6))
    places = [int(element["id"].rsplit("/")[-1]) for element in drawn]
    assert [element["id"] for element in again] == [element["id"] for element in drawn]
    assert all(place % 2 == 0 for place in places)
    assert places != sorted(places)
    assert {element["author"] for element in drawn} == {"artist of emoji"}
    assert len(list(make_sample.permissive("emoji", "style_out", 99))) == COUNT // 2


def test_trials_fit_the_kind_of_picture(corpora):
    entries = [entry for entry, _ in make_sample.sample()]
    assert len(entries) == 48
    by_file = {entry["file"]: entry for entry in entries}
    first = by_file["drawing-00.png"]
    assert [trial["task"] for trial in first["trials"]] == ["caption", "search", "caption"]
    assert first["trials"][2]["language"] == "de"
    assert first["trials"][2]["expected"] == [first["title"].replace("thing", "Ding")]
    assert [trial["task"] for trial in by_file["drawing-19.png"]["trials"]] == ["caption"]
    line = by_file["line-03.png"]
    assert line["trials"] == [{"task": "read", "expected": [line["title"]]}]
    assert [trial["task"] for trial in by_file["scene-09.png"]["trials"]] == ["ask", "ask"]
    assert by_file["shape-03.png"]["author"] == "artist of easy_vqa"


def test_the_folder_is_written_anew_all_of_it_or_nothing(corpora, tmp_path, monkeypatch):
    folder = tmp_path / "package" / "sample"
    folder.mkdir(parents=True)
    (folder / "old.png").write_text("old")
    monkeypatch.setattr(make_sample, "SAMPLE", folder)
    with monkeypatch.context() as patch:

        def full(*_, **__):
            raise OSError("No space left on device")

        patch.setattr(Image.Image, "save", full)
        with pytest.raises(OSError, match="No space left"):
            make_sample.main()
    assert [path.name for path in folder.parent.iterdir()] == ["sample"]
    assert (folder / "old.png").read_text() == "old"
    make_sample.main()
    assert [path.name for path in folder.parent.iterdir()] == ["sample"]
    assert not (folder / "old.png").exists()
    assert len(sample.load(folder)) == 48


def test_the_sample_that_ships_is_small_whole_credited_and_free_to_share():
    folder = make_sample.SAMPLE
    pictures = json.loads((folder / "sample.json").read_text("utf-8"))["pictures"]
    assert len(sample.load(folder)) == len(pictures) == 48
    files = {path.name for path in folder.iterdir()}
    assert files == {entry["file"] for entry in pictures} | {"sample.json"}
    assert sum(path.stat().st_size for path in folder.iterdir()) < LARGEST_BYTES
    for entry in pictures:
        assert make_sample.is_permissive(entry["licence"]), entry["file"]
        assert entry["source"], entry["file"]
        assert entry["author"], entry["file"]
        with Image.open(folder / entry["file"]) as picture:
            picture.verify()
