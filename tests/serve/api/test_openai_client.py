"""OpenAI's own client against the service on a socket: what people will really do."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from mmllm.runtime.model import MobileMultiModalLLM
from mmllm.serve import settings as settings_lib
from tests.serve import web


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp("client")
    settings = settings_lib.Settings(engine_threads=1, index_path=folder / "index.sqlite")
    with (
        web.listening(settings) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30.0) as made,
    ):
        yield made


def asking(text: str, picture: bytes) -> list[Any]:
    image = {"type": "image_url", "image_url": {"url": web.data_uri(picture)}}
    return [{"role": "user", "content": [{"type": "text", "text": text}, image]}]


def test_a_question_is_answered(
    client: openai.OpenAI, nano: MobileMultiModalLLM, picture_bytes: bytes
):
    answer = client.chat.completions.create(
        model="nano", messages=asking("is it red?", picture_bytes), max_tokens=50, temperature=0
    )
    assert answer.choices[0].message.content == nano.answer(picture_bytes, "is it red?")
    assert answer.choices[0].finish_reason == "stop"


def test_a_stream_comes_piece_by_piece(
    client: openai.OpenAI, nano: MobileMultiModalLLM, picture_bytes: bytes
):
    stream = client.chat.completions.create(
        model="nano",
        messages=asking("Describe the picture.", picture_bytes),
        stream=True,
        extra_body={"language": "de"},
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == nano.caption(picture_bytes, "de")
    assert len(pieces) > 2


def test_the_models_are_listed(client: openai.OpenAI):
    assert [model.id for model in client.models.list()] == ["nano"]
    assert client.models.retrieve("nano").owned_by == "mmllm"


def test_errors_are_the_clients_own(client: openai.OpenAI, picture_bytes: bytes):
    with pytest.raises(openai.NotFoundError, match="nothing at this address"):
        client.chat.completions.create(model="gpt", messages=asking("hello", picture_bytes))
    address = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.chat.completions.create(
            model="nano", messages=[{"role": "user", "content": address}]
        )
    assert caught.value.code == "url-refused"
    assert caught.value.request_id
