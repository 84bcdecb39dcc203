import json

import pytest
from PIL import Image

pytest.importorskip("tensorflow_datasets")
from mmllm.data import packages, sources  # noqa: E402
from mmllm.data.corpora import build, easy_vqa  # noqa: E402


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Thirty training and two test pictures in the package's layout."""
    root = tmp_path / "easy_vqa" / "data"
    for split, count in (("train", 30), ("test", 2)):
        (root / split / "images").mkdir(parents=True)
        rows = []
        for number in range(count):
            Image.new("RGB", (64, 64), (number, 0, 0)).save(root / split / f"images/{number}.png")
            rows += [["what shape is it?", "circle", number], ["is it red?", "yes", number]]
        (root / split / "questions.json").write_text(json.dumps(rows))
    monkeypatch.setattr(packages, "fetch", lambda name, progress=None: tmp_path)
    return root


def test_val_is_cut_from_train_by_picture(package):
    ids = {s: [row["id"] for row in easy_vqa.examples(package, s)] for s in easy_vqa.SPLITS}
    assert sorted(ids["train"] + ids["val"]) == sorted(f"train/{i}" for i in range(30))
    assert 0 < len(ids["val"]) < 10
    assert ids["test"] == ["test/0", "test/1"]


def test_questions_stay_with_their_picture_and_answers(package):
    row = next(easy_vqa.examples(package, "test"))
    assert row["questions"] == ["what shape is it?", "is it red?"]
    assert row["answers"] == ["circle", "yes"]


def test_an_unknown_split_is_refused(package):
    with pytest.raises(ValueError, match="'dev' is unknown; allowed: train, val, test"):
        next(easy_vqa.examples(package, "dev"))


def test_a_malformed_question_file_is_refused(package):
    path = package / "test" / "questions.json"
    path.write_text('[["what?", "circle"]]')
    with pytest.raises(ValueError, match="a row is"):
        easy_vqa.questions_of(path)


def test_the_builder_writes_all_three_splits(package, monkeypatch, tmp_path):
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path / "cache"))
    build.build(["easy_vqa"], progress=lambda line: None)
    rows = sources.load("easy_vqa", "test")
    assert len(rows) == 2
    assert rows[0]["image"].shape == (64, 64, 3)
    assert rows[0]["questions"] == ["what shape is it?", "is it red?"]
    credits = (sources.folder_of("easy_vqa") / sources.ATTRIBUTION_FILE).read_text()
    assert '"licence": "MIT"' in credits
