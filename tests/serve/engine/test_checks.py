"""Checks of words against the model that serves."""

import pytest

from mmllm.serve import problems
from mmllm.serve.engine import bundles, checks


@pytest.fixture(scope="module")
def bundle() -> bundles.Bundle:
    return bundles.open_bundle("nano")


def code_of(call) -> problems.Problem:
    with pytest.raises(problems.Problem) as raised:
        call()
    return raised.value


def test_a_language_must_be_the_models(bundle):
    for language in bundle.languages:
        checks.language(bundle, language)
    problem = code_of(lambda: checks.language(bundle, "tlh"))
    assert (problem.code, problem.field) == ("language-unknown", "language")
    assert "de" in problem.params["languages"]


def test_questions_come_back_clean(bundle):
    assert checks.question(bundle, "  what\tis  it? ") == "what is it?"
    long = "q w e r t " * 40
    assert code_of(lambda: checks.question(bundle, long)).code == "text-too-many-tokens"
    assert code_of(lambda: checks.question(bundle, "x" * 501)).code == "text-too-long"
    assert code_of(lambda: checks.question(bundle, "")).field == "question"


def test_texts_come_back_clean_and_in_order(bundle):
    assert checks.texts(bundle, "texts", [" a ", "b  c"], 2) == ("a", "b c")
    assert code_of(lambda: checks.texts(bundle, "texts", ["a"] * 3, 2)).code == "too-many-items"
    assert code_of(lambda: checks.texts(bundle, "texts", [], 2)).code == "text-empty"
    assert code_of(lambda: checks.texts(bundle, "texts", ["a", "\0"], 2)).code == "text-control"


def test_a_task_token_in_a_text_stays_text(bundle):
    assert checks.question(bundle, "<cap:de> what?") == "<cap:de> what?"


def test_numbers_and_metadata_have_bounds():
    checks.beam(1)
    checks.beam(8)
    assert code_of(lambda: checks.beam(9)).field == "beam"
    assert code_of(lambda: checks.number("k", 0, 5)).reason == "must be 1 to 5"
    checks.metadata({"a" * 64: "\x01" * 500})
    for wrong in ({"a": float("nan")}, {"a": "\ud800"}, {"a": {1, 2}}, {"a": "x" * 70_000}):
        problem = code_of(lambda wrong=wrong: checks.metadata(wrong))
        assert (problem.code, problem.field) == ("invalid-field", "metadata")
