"""What people may type, and what is refused in one line."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmllm.data import tokenizer as tokenizer_lib
from mmllm.runtime import prompts
from tests import tiny_bundle


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> tokenizer_lib.Tokenizer:
    path: Path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    return tokenizer_lib.Tokenizer(tiny_bundle.train_tokenizer(path))


@pytest.mark.parametrize("text", ["", " ", "\n\t "])
def test_an_empty_question_is_refused(text: str):
    with pytest.raises(ValueError, match="question must not be empty"):
        prompts.checked_text("question", text)


def test_a_long_question_is_refused():
    with pytest.raises(ValueError, match="at most 500 characters, got 10000"):
        prompts.checked_text("question", "x" * 10_000)
    assert len(prompts.checked_text("question", "x" * 500)) == 500


@pytest.mark.parametrize(
    ("text", "code"),
    [("a\x00b", "0000"), ("a\x1b[31m", "001B"), ("\x7f", "007F"), ("\ud800", "D800")],
)
def test_control_characters_and_broken_unicode_are_refused(text: str, code: str):
    with pytest.raises(ValueError, match=rf"control characters, got U\+{code}"):
        prompts.checked_text("question", text)


def test_white_space_is_tidied():
    assert prompts.checked_text("question", "  what\tis \n this? ") == "what is this?"


@given(st.text(max_size=600))
def test_a_text_passes_clean_or_is_refused(text: str):
    with contextlib.suppress(ValueError):
        clean = prompts.checked_text("question", text)
        assert clean == " ".join(clean.split())
        assert 0 < len(clean.encode()) <= 4 * prompts.MAX_QUESTION


def test_prompts_stand_between_their_task_tokens(vocabulary):
    words = vocabulary.encode("a red bus")
    assert prompts.caption(vocabulary, "de") == [vocabulary.task_id("cap:de")]
    assert prompts.question(vocabulary, "a red bus", 64) == [
        vocabulary.task_id("vqa"),
        *words,
        vocabulary.task_id("ans"),
    ]
    assert prompts.embedding(vocabulary, " a red  bus", 64) == [
        vocabulary.task_id("emb"),
        *words,
        vocabulary.eos_id,
    ]


def test_a_question_leaves_room_for_its_answer(vocabulary):
    long = "what colour is the violin? " * 8
    with pytest.raises(ValueError, match="question must have at most 30 tokens, got"):
        prompts.question(vocabulary, long, 40)
    with pytest.raises(ValueError, match="text must have at most 38 tokens, got"):
        prompts.embedding(vocabulary, long, 40)


def test_an_unknown_language_is_refused_with_the_known_ones():
    assert prompts.checked_language("de", ["en", "de"]) == "de"
    with pytest.raises(ValueError, match="language must be one of en, de, got 'xx'"):
        prompts.checked_language("xx", ["en", "de"])
