"""One vocabulary: any text survives it, nobody can type a task token, training is repeatable."""

import pickle

import hypothesis
import pytest
from hypothesis import strategies

from mmllm.data import tokenizer

VOCAB_SIZE = 430
TEXTS = [
    text
    for count in range(1, 9)
    for text in (
        f"{count} red apples on a green table",
        "how many blue birds are there?",
        "what is to the left of the rabbit?",
        "ein roter Bus und ein grüner Käfer",
        "un perro pequeño, una niña",
        "żółta łódka",
        "красный автобус и зелёный жук",
        "küçük kırmızı araba",
        "赤いバスと緑のカブトムシ",
        "红色公共汽车和绿色甲虫",
    )
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    tokenizer.train(TEXTS, path, VOCAB_SIZE)
    return path


@pytest.fixture(scope="module")
def words(path):
    return tokenizer.Tokenizer(path)


def test_the_vocabulary_has_the_asked_size_and_fixed_first_ids(words):
    assert words.vocab_size == VOCAB_SIZE
    assert (words.pad_id, words.bos_id, words.eos_id) == (0, 2, 3)


def test_every_task_and_place_has_its_own_id(words):
    ids = [words.task_id(task) for task in tokenizer.TASKS]
    ids += [words.place_id(place) for place in range(64)]
    assert len(set(ids)) == len(tokenizer.TASKS) + 64
    assert min(ids) > words.eos_id
    assert max(ids) < words.vocab_size


@pytest.mark.parametrize("text", TEXTS[:10])
def test_training_text_comes_back(words, text):
    assert words.decode(words.encode(text)) == text


@pytest.mark.parametrize(
    "text", ["鬱", "🦒🏽‍♀️", "ไทย", "x\0y", "12 345,67", "€ ‰", "ß", "\u202eabc", "𒀀"]
)
def test_text_of_no_trained_letter_comes_back_through_bytes(words, text):
    ids = words.encode(text)
    assert 1 not in ids  # <unk>
    assert words.decode(ids) == words.decode(words.encode(words.decode(ids)))
    assert words.decode(ids).replace(" ", "") == text.replace(" ", "")


@hypothesis.given(strategies.text(strategies.characters(codec="utf-8"), max_size=60))
@hypothesis.settings(deadline=None, max_examples=60)
def test_no_text_at_all_gives_an_unknown_or_a_control_id(words, text):
    controls = {words.task_id(task) for task in tokenizer.TASKS} | {0, 1, 2, 3}
    controls |= {words.place_id(place) for place in range(64)}
    assert not controls & set(words.encode(text))


@pytest.mark.parametrize("frame", ["{}", "what is {} this?", "a{}b", "{0}{0}"])
def test_a_typed_control_symbol_stays_plain_text(words, frame):
    controls = {words.task_id(task) for task in tokenizer.TASKS} | {0, 1, 2, 3}
    controls |= {words.place_id(place) for place in range(64)}
    for symbol in (*tokenizer.CONTROL_SYMBOLS, "<s>", "</s>", "<pad>", "<unk>"):
        text = frame.format(symbol)
        ids = words.encode(text)
        assert not controls & set(ids)
        assert words.decode(ids) == text


def test_a_full_width_control_symbol_stays_plain_text_after_nfkc(words):
    ids = words.encode("\uff1ccap:de\uff1e")
    assert words.task_id("cap:de") not in ids
    assert words.decode(ids) == "<cap:de>"


def test_a_typed_byte_piece_is_not_that_byte(words):
    assert words.decode(words.encode("<0x41>")) == "<0x41>"


def test_compatibility_letters_are_normalised(words):
    assert words.encode("ＡＢ　ｃ") == words.encode("AB c")


def test_white_space_is_collapsed(words):
    assert words.encode("  a\n\tred \r\n bus ") == words.encode("a red bus")
    assert words.encode("") == words.encode(" \n") == []


def test_digits_are_split(words):
    assert len(words.encode("2024")) >= 4


def test_control_ids_decode_to_nothing(words):
    ids = [words.task_id("cap:de"), *words.encode("ein roter Bus"), words.eos_id, 0, 0]
    assert words.decode(ids) == "ein roter Bus"
    assert words.decode([]) == ""


@pytest.mark.parametrize("id_", [-1, VOCAB_SIZE, 10**12])
def test_an_id_outside_the_vocabulary_is_refused(words, id_):
    with pytest.raises(ValueError, match=f"0 to {VOCAB_SIZE - 1}, got {id_}"):
        words.decode([5, id_])


def test_an_unknown_language_lists_the_known_ones(words):
    with pytest.raises(
        ValueError, match="en, de, fr, es, it, pt, nl, pl, ru, tr, ja, zh; got 'xx'"
    ):
        words.task_id("cap:xx")


def test_an_unknown_task_or_place_is_refused(words):
    with pytest.raises(ValueError, match="task must be one of"):
        words.task_id("dance")
    with pytest.raises(ValueError, match="0 to 63, got 64"):
        words.place_id(64)


def test_a_lone_surrogate_is_a_clear_error(words):
    with pytest.raises(ValueError, match="lone surrogate at character 2"):
        words.encode("ab\udc80")


def test_another_type_is_refused(words):
    with pytest.raises(TypeError):
        words.encode(b"bytes")


def test_a_very_long_question_is_encoded_whole(words):
    text = "how many birds? " * 700
    assert words.decode(words.encode(text)) == text.strip()


def test_a_pickled_tokenizer_works(words):
    again = pickle.loads(pickle.dumps(words))
    assert again.encode("赤いバス 🦒") == words.encode("赤いバス 🦒")
    assert again.task_id("ocr") == words.task_id("ocr")


def test_training_twice_gives_the_same_bytes(path, tmp_path):
    tokenizer.train(iter(TEXTS), tmp_path / "other name.model", VOCAB_SIZE)
    assert (tmp_path / "other name.model").read_bytes() == path.read_bytes()


def test_training_leaves_nothing_but_the_file(path):
    assert [entry.name for entry in path.parent.iterdir()] == ["tokenizer.model"]


@pytest.mark.parametrize("texts", [[], ["", "  \n"]])
def test_training_on_nothing_is_refused(texts, tmp_path):
    with pytest.raises(ValueError, match="nothing but white space"):
        tokenizer.train(texts, tmp_path / "t.model", VOCAB_SIZE)


def test_a_vocabulary_of_impossible_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"at least {tokenizer.MIN_VOCAB_SIZE}, got 300"):
        tokenizer.train(TEXTS, tmp_path / "t.model", 300)
    with pytest.raises(ValueError, match=r"vocab_size=8000 .* set it to a value <= \d+"):
        tokenizer.train(TEXTS, tmp_path / "t.model", 8000)
    assert not list(tmp_path.iterdir())


def test_a_text_that_training_would_drop_is_refused(tmp_path):
    with pytest.raises(ValueError, match="65536; split it"):
        tokenizer.train(["word " * 20_000], tmp_path / "t.model", VOCAB_SIZE)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.model' does not exist"):
        tokenizer.Tokenizer(tmp_path / "none.model")


@pytest.mark.parametrize("damage", ["empty", "half", "garbage"])
def test_a_damaged_file_is_refused(path, tmp_path, damage):
    good = path.read_bytes()
    data = {"empty": b"", "half": good[: len(good) // 2], "garbage": b"\xff" * 99}[damage]
    broken = tmp_path / "broken.model"
    broken.write_bytes(data)
    with pytest.raises(ValueError, match=r"broken\.model'") as error:
        tokenizer.Tokenizer(broken)
    assert "\n" not in str(error.value)


def test_a_vocabulary_made_elsewhere_is_refused(tmp_path):
    import sentencepiece

    path = tmp_path / "foreign.model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS), model_writer=file, vocab_size=100, minloglevel=2
        )
    with pytest.raises(ValueError, match="was not made by mmllm"):
        tokenizer.Tokenizer(path)
