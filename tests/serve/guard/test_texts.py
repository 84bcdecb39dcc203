"""Texts of all languages pass in one spelling; what is invisible or too long does not."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmllm.runtime import prompts
from mmllm.serve import problems
from mmllm.serve.guard import texts

MAX_CHARS = 500


def refused(text: str, limit: int = MAX_CHARS) -> problems.Problem:
    with pytest.raises(problems.Problem) as caught:
        texts.clean("question", text, limit)
    assert caught.value.field == "question"
    return caught.value


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  how \t many\r\n\n circles?  ", "how many circles?"),
        ("cafe\u0301", "café"),
        ("\u212b", "\u00c5"),
        ("a\u00a0b\u3000c\u2028d", "a b c d"),
        ("hand\u00adbook", "handbook"),
        ("\ufeffword", "word"),
        ("<b>&amp;</b> '\"; --", "<b>&amp;</b> '\"; --"),
        ("7", "7"),
        ("?", "?"),
    ],
)
def test_a_text_is_tidied(text, cleaned):
    assert texts.clean("question", text, MAX_CHARS) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "wie viele Kreise?",
        "сколько кругов?",
        "kaç daire var?",
        "円はいくつありますか？",
        "有几个圆？",
        "كم عدد الدوائر؟",
        "כמה עיגולים?",
        "क्‍ष",  # joiner in Devanagari
        "می\u200cخواهم",  # non-joiner in Persian
        "👩‍🚒 👩🏽‍🔬 🏳️‍🌈 👨‍👩‍👧 ❤️‍🔥 🙂‍↔️",
        "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f flag",
        "1️⃣ © ™ ∑ € \ue000",
    ],
)
def test_every_script_and_emoji_pass_unchanged(text):
    assert texts.clean("question", text, MAX_CHARS) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    ("text", "character"),
    [
        ("a\x00b", "U+0000"),
        ("a\x07", "U+0007"),
        ("a\x1b[31m", "U+001B"),
        ("a\x0bb", "U+000B"),
        ("a\x7f", "U+007F"),
        ("a\x85b", "U+0085"),
        ("a\x9b", "U+009B"),
        ("\ud800", "U+D800"),
        ("a\udfff", "U+DFFF"),
        ("user\u202etxt", "U+202E"),
        ("a\u2066b\u2069", "U+2066"),
        ("a\u200eb", "U+200E"),
        ("a\u200bb", "U+200B"),
        ("a\u2060b", "U+2060"),
        ("a\ufeffb", "U+FEFF"),
        ("a\u200db", "U+200D"),
        ("\u200d", "U+200D"),
        ("👩\u200d", "U+200D"),
        ("a\u200cb", "U+200C"),
        ("hello\U000e0068\U000e0069", "U+E0068"),
        ("\U0001f3f4\U000e0067\U000e0062", "U+E0067"),
        ("\ufffe", "U+FFFE"),
        ("\U0010ffff", "U+10FFFF"),
        ("\ufdd0", "U+FDD0"),
    ],
)
def test_what_is_invisible_is_refused_by_its_number(text, character):
    problem = refused(text)
    assert (problem.code, problem.params["character"]) == ("text-control", character)


@pytest.mark.parametrize(
    "text", ["", "   ", "\n\t", "\u00a0\u3000", "\u00ad", "\u3164", "\u0301", "\ufe0f"]
)
def test_a_text_of_nothing_visible_is_empty(text):
    assert refused(text).code == "text-empty"


def test_the_length_is_that_of_the_clean_text():
    assert texts.clean("question", "x" * 10 + " " * 60, 10) == "x" * 10
    assert texts.clean("question", "e\u0301" * 10, 10) == "é" * 10
    problem = refused("x" * 11, 10)
    assert (problem.code, problem.params["limit"]) == ("text-too-long", 10)


def test_a_text_too_long_by_far_is_not_even_looked_at():
    assert refused("\x00" * 81, 10).code == "text-too-long"


def test_many_marks_on_one_letter_are_bounded():
    assert refused("a" + "\u0301\u0327" * 10_000).code == "text-too-long"
    assert len(texts.clean("question", "a" + "\u0301\u0327" * 200, MAX_CHARS)) <= MAX_CHARS


@given(st.text(max_size=600))
def test_what_passes_is_clean_and_the_model_takes_it(text):
    try:
        cleaned = texts.clean("question", text, MAX_CHARS)
    except problems.Problem as problem:
        event = problem.code
        assert event.startswith("text-")
        return
    assert texts.clean("question", cleaned, MAX_CHARS) == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    assert prompts.checked_text("question", cleaned) == cleaned


@given(st.text(alphabet=st.characters(categories=["L", "N", "P"]), min_size=1, max_size=50))
def test_plain_words_of_any_script_pass(text):
    if not set(text) & texts._BLANK_LETTERS:
        assert texts.clean("text", text, MAX_CHARS) == unicodedata.normalize("NFC", text)
