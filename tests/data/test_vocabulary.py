"""A vocabulary is made once, under a name, and never mistaken for another."""

import json

import pytest

from mmllm.data import tokenizer, vocabulary

COLOURS = "red green blue yellow black white orange purple grey brown".split()
THINGS = "bus cat dog house tree circle square triangle apple car boat star fox quilt".split()
THINGS += "umbrella elephant mountain keyboard violin zeppelin jacket pyramid".split()
TEXTS = [f"a {colour} {thing}" for colour in COLOURS for thing in THINGS]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path))
    return tmp_path / "vocabularies" / "small"


def make(texts=TEXTS):
    return vocabulary.load_or_train("small", 380, lambda: texts, {"corpora": {"emoji": "ab"}})


def test_it_is_trained_where_it_is_missing_and_recorded(folder):
    made = make()
    assert made.tokenizer.vocab_size == made.size == 380
    record = json.loads((folder / "vocabulary.json").read_text())
    assert record == {
        "version": 1,
        "sha256": made.sha256,
        "size": 380,
        "trained_on": {"corpora": {"emoji": "ab"}},
    }


def test_the_order_and_number_of_texts_change_nothing(monkeypatch, tmp_path):
    first = make().sha256
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path / "again"))
    assert make([*reversed(TEXTS), *TEXTS, ""]).sha256 == first


def test_it_is_opened_as_it_is_where_it_is_there():
    made = make()

    def refuse():
        raise AssertionError("trained again")

    assert vocabulary.load_or_train("small", 380, refuse, {}) == made


def test_an_interrupted_training_is_begun_anew(folder):
    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(b"half")  # without a record
    assert make().size == 380


def test_another_size_is_refused():
    make()
    with pytest.raises(ValueError, match="'small' has 380 pieces, model.vocab_size is 420"):
        vocabulary.load("small", 420)


def test_a_changed_file_is_refused(folder):
    make()
    with (folder / "tokenizer.model").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match="is not the vocabulary that vocabulary.json describes"):
        vocabulary.load("small", 380)


def test_none_of_that_name_is_said():
    with pytest.raises(FileNotFoundError, match="no vocabulary at .*small; prepare a run"):
        vocabulary.load("small", 380)


def test_a_bundle_s_tokenizer_is_installed_under_a_name(folder, tmp_path):
    file = tmp_path / "shipped.model"
    tokenizer.train(TEXTS, file, 380)
    installed = vocabulary.install("small", file)
    assert installed.path.read_bytes() == file.read_bytes()
    assert vocabulary.load("small", 380) == installed == vocabulary.install("small", file)
    other = tmp_path / "other.model"
    tokenizer.train([f"{text} again" for text in TEXTS], other, 380)
    with pytest.raises(ValueError, match="small holds another vocabulary than"):
        vocabulary.install("small", other)
