"""Tables of token ids by hand, with a vocabulary of words that are as long as they look."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from configs import tiny
from mmllm.common import config as config_lib
from mmllm.data import tables, tokenizer
from mmllm.data.charset import CHARSET

CONFIG = dataclasses.replace(config_lib.resolve(tiny.get_config()).data, decoder_tokens=6)
EOS, PAD = 3, 0


class Words(tokenizer.Tokenizer):
    """One id a word, in the order of first use from 100 on."""

    def __init__(self):
        self.known: list[str] = []

    @property
    def eos_id(self):
        return EOS

    def task_id(self, task):
        return 10 + tokenizer.TASKS.index(task)

    def encode(self, text):
        for word in text.split():
            if word not in self.known:
                self.known.append(word)
        return [100 + self.known.index(word) for word in text.split()]


@pytest.fixture
def words():
    return Words()


def emoji(english, keywords="", **others):
    languages = ["en", *others]
    return {
        "languages": languages,
        "captions": [english, *others.values()],
        "keywords": keywords,
    }


def test_captions_put_english_first_and_drop_languages_the_model_does_not_speak():
    element = {"languages": ["de", "en", "xx", "fr"], "captions": ["Rad", "bike", "?", "vélo"]}
    assert tables.captions_of(element) == [("en", "bike"), ("de", "Rad"), ("fr", "vélo")]


def test_a_scene_has_one_english_caption():
    assert tables.captions_of({"caption": "a cat on a mat"}) == [("en", "a cat on a mat")]


def test_captions_become_rows_grouped_by_picture(words):
    elements = [emoji("red bus", "car|bus", de="roter Bus"), emoji("cat")]
    table = tables.caption_table(elements, words, CONFIG)
    en, de = words.task_id("cap:en"), words.task_id("cap:de")
    assert table.ids.tolist() == [
        [en, 100, 101, EOS, PAD, PAD],
        [de, 102, 103, EOS, PAD, PAD],
        [en, 104, EOS, PAD, PAD, PAD],
    ]
    assert table.first.tolist() == [0, 2, 3]
    assert table.english == ["red bus", "cat"]
    assert table.keywords == ["car|bus", ""]
    assert table.others == [[("de", "roter Bus")], []]
    assert table.weight.tolist() == [1.0, 1.0]


def test_a_picture_whose_english_caption_is_too_long_is_never_drawn(words):
    elements = [
        emoji("one two three four"),
        emoji("one two three four five", de="eins"),
        emoji("x"),
    ]
    table = tables.caption_table(elements, words, CONFIG)
    assert table.first.tolist() == [0, 1, 1, 2]
    assert table.weight.tolist() == [1.0, 0.0, 1.0]


def test_a_translation_that_is_too_long_is_left_out_alone(words):
    table = tables.caption_table([emoji("x", de="a b c d e", fr="y")], words, CONFIG)
    assert table.ids[:, 0].tolist() == [words.task_id("cap:en"), words.task_id("cap:fr")]
    assert table.weight.tolist() == [1.0]


@pytest.mark.parametrize(
    ("caption", "crowded"),
    [
        ("flag: Poland", True),
        ("Letter A", True),
        ("sign language B", True),
        ("the number 5", True),
        ("letters", False),
        ("white flag", False),
        ("red bus", False),
    ],
)
def test_flags_and_letters_crowd_out_the_others_less(words, caption, crowded):
    table = tables.caption_table([emoji(caption)], words, CONFIG)
    assert table.weight.tolist() == [CONFIG.crowded_weight if crowded else 1.0]


def test_questions_become_rows_with_the_place_of_their_answer_token(words):
    elements = [
        {"questions": ["What is It", "where"], "answers": ["Cat", "on mat"]},
        {"questions": ["where"], "answers": ["here"]},
    ]
    table = tables.question_table(elements, words, CONFIG)
    # The first needs 7 tokens: <vqa> what is it <ans> Cat <eos>.
    vqa, ans = words.task_id("vqa"), words.task_id("ans")
    where, on, mat, here = (100 + words.known.index(word) for word in "where on mat here".split())
    assert table.ids.tolist() == [
        [vqa, where, ans, on, mat, EOS],
        [vqa, where, ans, here, EOS, PAD],
    ]
    assert table.answer.tolist() == [2, 2]
    assert table.picture.tolist() == [0, 1]
    assert table.left_out == 1


def test_a_question_without_its_answer_is_refused(words):
    with pytest.raises(ValueError, match="shorter"):
        tables.question_table([{"questions": ["a", "b"], "answers": ["c"]}], words, CONFIG)


def test_texts_are_lower_case_and_cut_to_the_row(words):
    rows = tables.text_rows(words, ["Red bus", "a b c d e f g"], 5)
    emb = words.task_id("emb")
    assert words.known[:2] == ["red", "bus"]
    assert rows.tolist() == [[emb, 100, 101, EOS, PAD], [emb, 102, 103, 104, EOS]]


def test_no_texts_make_an_empty_table(words):
    assert tables.text_rows(words, [], 5).shape == (0, 5)


def test_characters_of_a_line_are_counted_from_one():
    assert tables.line_ids(" !~", 3) == [1, 2, 95]
    assert tables.line_ids("", 3) == []
    assert tables.line_ids(CHARSET, 95) == list(range(1, 96))


@pytest.mark.parametrize("text", ["abcd", "é"])
def test_a_line_that_cannot_be_read_is_refused(text):
    with pytest.raises(ValueError, match=f"line '{text}' must have at most 3 characters"):
        tables.line_ids(text, 3)


def test_lines_become_grey_strips_and_classes():
    white = np.asarray(Image.new("RGB", (16, 8), "white"))
    elements = iter([{"image": white, "text": "!"}, {"image": white // 2, "text": '"#'}])
    pixels, ids = tables.line_arrays(elements, 2, 8, 32, 3)
    assert pixels.shape == (2, 8, 32)
    assert (pixels[0] == 255).all()
    assert (pixels[1] == 127).all()
    assert ids.tolist() == [[2, 0, 0], [3, 4, 0]]


def test_the_vocabulary_sees_captions_questions_answers_lines_and_the_dictionary():
    captioned = [emoji("Bus", de="der Bus"), {"caption": "a scene"}]
    questioned = [{"questions": ["What?"], "answers": ["Cat"]}]
    texts = tables.vocabulary_texts(captioned, questioned, ["LINE"], [("dog", "an animal")])
    assert list(texts) == "Bus|der Bus|a scene|what?|Cat|LINE|dog|an animal".split("|")
