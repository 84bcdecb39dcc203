import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from mmllm.runtime.model import MobileMultiModalLLM
from mmllm.serve import metrics, problems
from mmllm.serve.api import app as app_lib
from mmllm.serve.engine import service
from mmllm.serve.guard import keys
from tests.serve import engines, web

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with web.serving(tmp_path_factory.mktemp("openai")) as client:
        yield client


def asking(text: str, picture: bytes, **fields) -> dict:
    parts = [
        {"type": "text", "text": text},
        {"type": "image_url", "image_url": {"url": web.data_uri(picture)}},
    ]
    return {"model": "nano", "messages": [{"role": "user", "content": parts}], **fields}


def events(text: str) -> list:
    """The data of server-sent events, the last of which is not JSON."""
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    data = [block.removeprefix("data: ") for block in blocks]
    return [json.loads(line) if line != "[DONE]" else line for line in data]


def joined(chunks: list) -> str:
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def test_a_question_a_caption_and_a_reading_come_by_what_is_asked(
    client: TestClient, nano: MobileMultiModalLLM, picture_bytes: bytes, page_bytes: bytes
):
    def answer_to(text: str, picture: bytes, **fields) -> str:
        answer = client.post(CHAT, json=asking(text, picture, **fields)).json()
        assert answer["choices"][0]["finish_reason"] == "stop"
        return answer["choices"][0]["message"]["content"]

    assert answer_to("is it red?", picture_bytes) == nano.answer(picture_bytes, "is it red?")
    assert answer_to("Describe this image.", picture_bytes) == nano.caption(picture_bytes)
    assert answer_to("Beschreibe das Bild", picture_bytes) == nano.caption(picture_bytes, "de")
    assert answer_to("", picture_bytes, language="fr") == nano.caption(picture_bytes, "fr")
    lines = nano.read_text(page_bytes)
    assert answer_to("Read the text.", page_bytes) == "\n".join(line.text for line in lines)


@pytest.mark.parametrize("text", ["is it red?", "describe it", "read the text"])
def test_the_pieces_of_a_stream_are_the_whole_answer(
    client: TestClient, page_bytes: bytes, text: str
):
    whole = client.post(CHAT, json=asking(text, page_bytes)).json()
    stream = client.post(CHAT, json=asking(text, page_bytes, stream=True))
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.headers["ratelimit-limit"]
    *chunks, done = events(stream.text)
    assert done == "[DONE]"
    assert joined(chunks) == whole["choices"][0]["message"]["content"]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-1] == "stop"
    assert {chunk["id"] for chunk in chunks} == {f"chatcmpl-{stream.headers['x-request-id']}"}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


def test_the_model_that_serves_is_listed_and_others_are_not_found(
    client: TestClient, picture_bytes: bytes
):
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["nano"]
    assert client.get("/v1/models/nano").json()["object"] == "model"
    for answer in (
        client.get("/v1/models/gpt"),
        client.post(CHAT, json=asking("hello", picture_bytes, model="gpt")),
    ):
        assert answer.status_code == 404
        assert answer.json()["error"]["param"] == "model"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"language": "xx"}, 422, "language-unknown"),
        ({"n": 2}, 422, "invalid-field"),
        ({"messages": []}, 422, "invalid-field"),
        ({"messages": [{"role": "user", "content": "hello"}]}, 422, "invalid-field"),
    ],
)
def test_an_error_has_its_status_whether_streamed_or_not(
    client: TestClient, picture_bytes: bytes, stream: bool, change: dict, status: int, code: str
):
    body = {**asking("describe it", picture_bytes), "stream": stream, **change}
    answer = client.post(CHAT, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("url", ["https://example.org/a.png", "http://127.0.0.1:1/", "file:///a"])
def test_an_address_is_never_fetched(client: TestClient, url: str):
    body = asking("describe it", b"")
    body["messages"][0]["content"][1]["image_url"]["url"] = url
    answer = client.post(CHAT, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "url-refused")


def test_each_task_needs_its_scope(tmp_path: Path, picture_bytes: bytes):
    key, entry = keys.new_key("asker", ("vqa",))
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [entry]}))
    headers = {"Authorization": f"Bearer {key}"}
    with web.serving(tmp_path, api_keys_file=file) as client:
        answered = client.post(CHAT, json=asking("is it red?", picture_bytes), headers=headers)
        described = client.post(CHAT, json=asking("describe it", picture_bytes), headers=headers)
        nobody = client.post(CHAT, json=asking("is it red?", picture_bytes))
    assert (answered.status_code, described.status_code, nobody.status_code) == (200, 403, 401)
    assert described.json()["error"]["type"] == "permission_error"


def test_an_engine_that_breaks_before_the_first_piece_is_a_status(
    tmp_path: Path, picture_bytes: bytes
):
    faults = engines.Faults()
    with web.serving(tmp_path, faults.maker) as client:
        faults.raising.update(("litert", "jax"))
        answer = client.post(CHAT, json=asking("describe it", picture_bytes, stream=True))
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"


def test_an_engine_that_breaks_between_pieces_ends_the_stream_with_an_error(
    settings, picture_bytes: bytes, monkeypatch: pytest.MonkeyPatch
):
    made = service.Service(settings, metrics.Metrics())
    whole = made.stream

    async def breaking(*arguments, **options):
        async for piece in whole(*arguments, **options):
            yield piece
            raise problems.Problem("engine-stuck")

    monkeypatch.setattr(made, "stream", breaking)
    with TestClient(app_lib.create_app(settings, made), web.HOST) as client:
        answer = client.post(CHAT, json=asking("describe it", picture_bytes, stream=True))
    assert answer.status_code == 200
    first, last = events(answer.text)
    assert first["choices"][0]["delta"]["content"]
    assert last["error"]["code"] == "engine-stuck"


def test_a_client_that_leaves_a_stream_closes_it(
    settings, picture_bytes: bytes, monkeypatch: pytest.MonkeyPatch
):
    async def run() -> list[str]:
        made, steps = service.Service(settings, metrics.Metrics()), []
        gone = asyncio.Event()

        async def endless(*_, **__):
            try:
                while True:
                    yield "piece"
                    await asyncio.sleep(0)
            finally:
                steps.append("closed")

        monkeypatch.setattr(made, "stream", endless)
        app = app_lib.create_app(settings, made)
        body = json.dumps(asking("describe it", picture_bytes, stream=True)).encode()
        sent = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> dict:
            if (message := next(sent, None)) is not None:
                return message
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict) -> None:
            if b"piece" in message.get("body", b""):
                gone.set()

        await made.start()
        try:
            await asyncio.wait_for(app(web.scope(CHAT, "application/json"), receive, send), 30)
        finally:
            await made.close()
        return steps

    assert asyncio.run(run()) == ["closed"]
