"""The catalogue of errors, their documents, and that the whole service raises them rightly."""

import ast
import copy
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmllm.serve import messages, problems

SERVE = Path(problems.__file__).parent
HOSTILE = "</script><script>alert(1)</script>\u202e\x00\ud800 {$limit}"


def body(response) -> dict:
    return json.loads(response.body)


@pytest.mark.parametrize("code", problems.CATALOGUE)
def test_every_problem_has_an_error_status_and_a_log_level(code):
    kind = problems.CATALOGUE[code]
    assert 400 <= kind.status < 600
    # An engine that fails is the operator's concern, a wrong request is not.
    assert kind.level != "error" or kind.status >= 500


def test_a_document_has_the_members_of_the_standard_and_ours():
    problem = problems.Problem("text-too-long", field="question", limit=500, reason="600 given")
    assert problems.document(problem, "de", "r1", "/v1/vqa") == {
        "type": "urn:mmllm:problem:text-too-long",
        "title": "Text zu lang",
        "status": 422,
        "detail": "Das Feld „question“ darf höchstens 500 Zeichen haben.",
        "instance": "/v1/vqa",
        "code": "text-too-long",
        "request_id": "r1",
        "field": "question",
        "reason": "600 given",
    }


def test_what_is_unknown_is_left_out():
    document = problems.document(problems.Problem("internal"))
    assert sorted(document) == ["code", "detail", "status", "title", "type"]


def test_the_response_names_its_type_and_language():
    response = problems.response(problems.Problem("not-found"), "ja")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["content-language"] == "ja"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["vary"] == "Accept-Language"
    assert body(response)["title"] == "見つかりません"


@pytest.mark.parametrize(
    ("seconds", "header"),
    [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (-5.0, "1"), (1e9, "86400")],
)
def test_the_next_try_is_told_in_whole_seconds_and_at_least_one(seconds, header):
    response = problems.response(problems.Problem("rate-limited", retry_after_s=seconds))
    assert response.headers["retry-after"] == header
    assert body(response)["retry_after"] == int(header)


def test_without_a_time_there_is_no_header():
    problem = problems.Problem("queue-full", retry_after_s=float("nan"))
    assert "retry-after" not in problems.response(problem).headers


@pytest.mark.parametrize(
    "code", [c for c, kind in problems.CATALOGUE.items() if kind.status == 401]
)
def test_whoever_must_sign_in_is_told_how(code):
    response = problems.response(problems.Problem(code))
    assert response.headers["www-authenticate"].startswith("Bearer")


def test_a_variable_must_be_one_of_the_message():
    with pytest.raises(TypeError, match="field, limit"):
        problems.Problem("text-too-long", field="text")
    with pytest.raises(TypeError, match="colour"):
        problems.Problem("internal", colour="red")
    with pytest.raises(ValueError, match="no-such-thing"):
        problems.Problem("no-such-thing")


def test_a_problem_survives_copies_and_processes():
    problem = problems.Problem("text-too-long", field="text", limit=5, retry_after_s=2.0)
    for other in (copy.copy(problem), pickle.loads(pickle.dumps(problem))):
        assert problems.document(other) == problems.document(problem)


@pytest.mark.parametrize("language", messages.LANGUAGES)
def test_hostile_words_of_a_request_do_nothing_in_an_answer(language):
    problem = problems.Problem("text-empty", field=HOSTILE, reason=HOSTILE)
    response = problems.response(problem, language, "id", "/v1/" + HOSTILE)
    assert not set(response.body) & set(b"<>&")
    for value in body(response).values():
        assert not set(str(value)) & set("\u202e\x00\ud800")


def test_an_error_does_not_grow_with_the_request():
    problem = problems.Problem("text-empty", field="x" * 1_000_000, reason="y" * 1_000_000)
    assert len(problems.response(problem).body) < 2_000


def test_a_list_of_what_is_allowed_is_written_out():
    problem = problems.Problem("image-format", formats=("JPEG", "PNG"))
    assert problems.document(problem)["detail"].endswith("Accepted: JPEG, PNG.")


@given(st.text(), st.text(), st.sampled_from(messages.LANGUAGES))
def test_any_text_makes_a_valid_document(field, instance, language):
    problem = problems.Problem("invalid-field", field=field)
    told = body(problems.response(problem, language, "id", instance))
    assert told["instance"].isascii()
    assert told["status"] == 422


def raised_in(file: Path) -> list[tuple[int, str, set[str]]]:
    """Lines, codes and keywords of the calls `problems.Problem("code", ...)` of a file."""
    return [
        (node.lineno, node.args[0].value, {keyword.arg or "**" for keyword in node.keywords})
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("Problem", "problems.Problem")
        and node.args
        and isinstance(node.args[0], ast.Constant)
    ]


def test_the_service_raises_no_problem_with_wrong_words():
    wrong = []
    for file in sorted(SERVE.rglob("*.py")):
        for line, code, names in raised_in(file):
            given = names - {"retry_after_s", "reason"}
            needed = messages.variables("en", code) if code in problems.CATALOGUE else {"unknown"}
            known = needed | messages.variables("en", code, "more") | {"field"}
            if "**" not in names and not needed <= given <= known:
                wrong.append(f"{file.name}:{line} {code}: needs {set(needed)}, got {given}")
    assert not wrong, "\n".join(wrong)
