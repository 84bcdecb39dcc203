import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from mmllm.runtime.model import MobileMultiModalLLM
from mmllm.serve import settings as settings_lib
from tests.serve import web

SCORE_TOLERANCE = 1e-4
"""Other batches and threads add up in another order."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("routes")
    with web.serving(folder, anonymous_scopes=settings_lib.SCOPES) as client:
        yield client


def problem(response, status: int) -> dict:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return response.json()


def test_a_caption_is_the_models_own(
    client: TestClient, nano: MobileMultiModalLLM, picture_bytes: bytes
):
    expected = nano.scored_captions([picture_bytes], "de")[0]
    form = client.post("/v1/caption", files={"image": picture_bytes}, data={"language": "de"})
    body = {"image": web.data_uri(picture_bytes), "language": "de"}
    for response in (form, client.post("/v1/caption", json=body)):
        answer = response.json()
        assert (answer["caption"], answer["language"]) == (expected.text, "de")
        assert answer["score"] == pytest.approx(expected.score, abs=SCORE_TOLERANCE)
        assert (answer["model"], answer["engine"], answer["degraded"]) == ("nano", "litert", False)
    assert answer["cached"]
    assert set(answer["timings"]) == {"decode_ms", "queue_ms", "engine_ms", "total_ms"}


def test_the_lines_of_a_page_have_boxes_in_the_page(
    client: TestClient, nano: MobileMultiModalLLM, page_bytes: bytes
):
    answer = client.post("/v1/ocr", files={"image": page_bytes}).json()
    expected = nano.read_text(page_bytes)
    assert [line["text"] for line in answer["lines"]] == [line.text for line in expected]
    assert [tuple(line["box"]) for line in answer["lines"]] == [line.box for line in expected]
    assert answer["text"] == "\n".join(line.text for line in expected)
    assert (answer["width"], answer["height"]) == (240, 90)


def test_a_question_is_answered(
    client: TestClient, nano: MobileMultiModalLLM, picture_bytes: bytes
):
    response = client.post(
        "/v1/vqa", files={"image": picture_bytes}, data={"question": "  is it\tred? "}
    )
    assert response.json()["answer"] == nano.answer(picture_bytes, "is it red?")


def test_pictures_and_texts_are_embedded_in_one_space(
    client: TestClient, nano: MobileMultiModalLLM, picture_bytes: bytes
):
    of_image = client.post("/v1/embed/image", files={"image": picture_bytes}).json()
    of_texts = client.post("/v1/embed/text", json={"texts": ["a bus", "the moon"]}).json()
    assert of_image["fingerprint"] == of_texts["fingerprint"] == nano.fingerprint
    np.testing.assert_allclose(
        of_image["embedding"], nano.embed_image(picture_bytes), atol=SCORE_TOLERANCE
    )
    np.testing.assert_allclose(
        of_texts["embeddings"], nano.embed_texts(["a bus", "the moon"]), atol=SCORE_TOLERANCE
    )


def test_an_indexed_picture_is_found_by_itself_and_by_words_until_it_is_removed(
    client: TestClient, picture_bytes: bytes, page_bytes: bytes
):
    added = client.post(
        "/v1/index/moon", files={"image": picture_bytes}, data={"metadata": '{"by": "me"}'}
    )
    assert added.json()["id"] == "moon"
    client.post("/v1/index/page", json={"image": web.data_uri(page_bytes), "metadata": {}})
    found = client.post("/v1/search", files={"image": picture_bytes}, data={"k": "1"}).json()
    assert [(hit["id"], hit["metadata"]) for hit in found["hits"]] == [("moon", {"by": "me"})]
    assert found["hits"][0]["score"] == pytest.approx(1, abs=SCORE_TOLERANCE)
    found = client.post("/v1/search", json={"text": "quarter moon"}).json()
    assert [hit["id"] for hit in found["hits"]] == ["moon", "page"]
    assert client.delete("/v1/index/moon").status_code == 204
    assert problem(client.delete("/v1/index/moon"), 404)["code"] == "entry-not-found"
    assert client.delete("/v1/index/page").status_code == 204
    assert client.post("/v1/search", json={"text": "moon"}).json()["hits"] == []


def test_a_search_needs_a_text_or_a_picture_and_not_both(client: TestClient, picture_bytes: bytes):
    both = {"files": {"image": picture_bytes}, "data": {"text": "moon"}}
    for body in (both, {"json": {}}, {"json": {"k": 3}}):
        assert problem(client.post("/v1/search", **body), 422)["field"] == "text"


def test_info_says_what_serves(client: TestClient, nano: MobileMultiModalLLM):
    info = client.get("/v1/info").json()
    assert (info["model"], info["fingerprint"]) == ("nano", nano.fingerprint)
    assert tuple(info["languages"]) == nano.languages
    assert info["embedding_dimensions"] == nano.config.embed_dim
    assert info["limits"]["max_body_bytes"] == 10_000_000


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("caption", {"data": {"language": "xx"}}, 422, "language-unknown"),
        ("caption", {"data": {"beam": "0"}}, 422, "invalid-field"),
        ("caption", {"data": {"colour": "red"}}, 422, "invalid-field"),
        ("vqa", {}, 422, "invalid-field"),
        ("vqa", {"data": {"question": " \n "}}, 422, "text-empty"),
        ("vqa", {"data": {"question": "a\x00b"}}, 422, "text-control"),
        ("vqa", {"data": {"question": "a" * 501}}, 422, "text-too-long"),
        ("vqa", {"data": {"question": "zx qv " * 80}}, 422, "text-too-many-tokens"),
        ("search", {"data": {"k": "101"}}, 422, "invalid-field"),
        ("index/x", {"data": {"metadata": "[]"}}, 422, "invalid-field"),
        ("index/a%20b", {}, 422, "invalid-field"),
        ("index/..%2Fetc", {}, 404, "not-found"),
    ],
)
def test_wrong_fields_are_refused_with_a_code_of_their_own(
    client: TestClient, picture_bytes: bytes, path: str, body: dict, status: int, code: str
):
    response = client.post(f"/v1/{path}", files={"image": picture_bytes}, **body)
    assert problem(response, status)["code"] == code


@pytest.mark.parametrize(
    ("image", "code"),
    [
        ("https://example.org/a.png", "url-refused"),
        ("file:///etc/passwd", "url-refused"),
        ("data:image/svg+xml;base64,AAAA", "image-format"),
        ("not base64", "base64-invalid"),
        ("AAAA", "not-an-image"),
    ],
)
def test_what_is_no_picture_is_refused(client: TestClient, image: str, code: str):
    response = client.post("/v1/caption", json={"image": image})
    assert response.json()["code"] == code
    assert image not in response.text.replace("AAAA", "")


@pytest.mark.parametrize(
    ("texts", "code"),
    [([], "invalid-field"), (["a"] * 65, "too-many-items"), (["ok", "\u202e"], "text-control")],
)
def test_texts_are_counted_and_cleaned(client: TestClient, texts: list[str], code: str):
    response = client.post("/v1/embed/text", json={"texts": texts})
    assert problem(response, 422)["code"] == code


def test_markup_in_a_request_comes_back_as_no_markup(client: TestClient, picture_bytes: bytes):
    response = client.post(
        "/v1/caption", files={"image": picture_bytes}, data={"<script>x</script>": "1"}
    )
    assert response.status_code == 422
    assert "<" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"


def test_errors_are_in_the_clients_language(client: TestClient):
    response = client.post("/v1/caption", json={}, headers={"Accept-Language": "de-AT, en;q=0.5"})
    assert response.headers["content-language"] == "de"
    assert "Feld" in response.json()["detail"]


def test_a_reload_of_what_is_no_model_leaves_the_old_one_serving(
    client: TestClient, picture_bytes: bytes, tmp_path: Path
):
    response = client.post("/v1/admin/reload", json={"model": str(tmp_path / "none")})
    assert problem(response, 422)["code"] == "model-refused"
    assert str(tmp_path) not in response.text
    assert client.post("/v1/caption", files={"image": picture_bytes}).status_code == 200


def test_a_reload_answers_with_the_model_that_serves_then(client: TestClient):
    answer = client.post("/v1/admin/reload", json={"model": "nano"}).json()
    assert (answer["model"], answer["engine"]) == ("nano", "litert")


def test_one_of_several_processes_does_not_change_its_model_alone(tmp_path: Path):
    with web.serving(tmp_path, anonymous_scopes=settings_lib.SCOPES, workers=2) as client:
        told = problem(client.post("/v1/admin/reload", json={"model": "nano"}), 409)
    assert told["code"] == "several-processes"
    assert "SIGHUP" in told["reason"]


def test_every_task_is_in_the_document(client: TestClient):
    paths = client.get("/openapi.json").json()["paths"]
    assert {f"/v1/{task}" for task in ("caption", "ocr", "vqa", "search")} <= set(paths)
    assert json.dumps(paths).count("application/problem+json") > 50
