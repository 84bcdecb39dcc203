import pytest

from mmllm.serve import problems
from mmllm.serve.api import chat

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
OTHER = {"type": "image_url", "image_url": {"url": "data:image/png;base64,BBBB"}}


def request(*messages: dict, **fields) -> chat.ChatRequest:
    return chat.ChatRequest.model_validate({"model": "nano", "messages": list(messages), **fields})


def user(*parts: dict | str) -> dict:
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("text", "task", "language"),
    [
        ("", "caption", None),
        ("Describe this image.", "caption", "en"),
        ("Please, can you describe the photo?", "caption", "en"),
        ("What's in this image?", "caption", "en"),
        ("What’s in this picture?", "caption", "en"),
        ("Beschreibe das Bild", "caption", "de"),
        ("Was ist auf dem Bild?", "caption", "de"),
        ("Décrivez cette image", "caption", "fr"),
        ("Describe la imagen", "caption", "es"),
        ("Descrivi questa immagine", "caption", "it"),
        ("Descreva a imagem", "caption", "pt"),
        ("Beschrijf de foto", "caption", "nl"),
        ("Opisz to zdjęcie", "caption", "pl"),
        ("Опиши картинку", "caption", "ru"),
        ("Bu resmi açıkla", "caption", "tr"),
        ("この画像を説明してください", "caption", "ja"),
        ("描述这张图片", "caption", "zh"),
        ("Read the text", "ocr", None),
        ("What does it say?", "ocr", None),
        ("Transcribe this", "ocr", None),
        ("Lies den Text", "ocr", None),
        ("Прочитай текст", "ocr", None),
        ("what colour is it?", "vqa", None),
        ("how many circles are there?", "vqa", None),
        ("is this readable?", "vqa", None),
        ("is the described thing red?", "vqa", None),
    ],
)
def test_the_words_of_a_message_pick_the_task(text: str, task: str, language: str | None):
    assert chat.task_of(text) == (task, language)


def test_every_language_of_captions_has_its_own_words():
    assert len(chat.CAPTION) == 12


def test_the_last_user_message_is_the_question():
    conversation = request(
        {"role": "system", "content": "Answer at length."},
        user("what is it?", PICTURE),
        {"role": "assistant", "content": "a bus"},
        user("what colour", OTHER, "is it?"),
    )
    assert chat.parse(conversation, 16) == chat.ParsedChat(
        "vqa", "data:image/png;base64,BBBB", "what colour is it?", None
    )


def test_a_question_without_a_picture_is_about_the_last_one_shown():
    conversation = request(
        user("what is it?", PICTURE),
        {"role": "assistant", "content": "a bus"},
        {"role": "user", "content": "what colour is it?"},
    )
    assert chat.parse(conversation, 16).image == "data:image/png;base64,AAAA"


def test_the_field_language_wins_over_the_language_of_the_wish():
    assert chat.parse(request(user("Beschreibe das Bild", PICTURE)), 16).language == "de"
    conversation = request(user("Describe this", PICTURE), language="tr")
    assert chat.parse(conversation, 16).language == "tr"


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([{"role": "system", "content": "hello"}], "invalid-field"),
        ([user("hello")], "invalid-field"),
        ([user(PICTURE, OTHER)], "invalid-field"),
        ([user(PICTURE), user(PICTURE), user(PICTURE)], "too-many-items"),
    ],
)
def test_a_conversation_without_exactly_one_picture_to_ask_about_is_refused(messages, code):
    with pytest.raises(problems.Problem) as caught:
        chat.parse(request(*messages), 2)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"tools": [{"type": "function"}]},
        {"tools": None, "tool_choice": "required"},
        {"logprobs": True},
        {"stop": ["\n"]},
        {"response_format": {"type": "json_object"}},
        {"stream_options": {"include_usage": True}},
        {"language": "x" * 17},
        {"metadata": {"a": "\u202e"}},
        {"modalities": ["audio"]},
        {"temperature": 3.0},
        {"messages": []},
        {"stream_options": {"other": 1}},
    ],
)
def test_what_the_model_cannot_do_is_refused_rather_than_passed_over(fields: dict):
    with pytest.raises(ValueError, match="validation error"):
        chat.ChatRequest.model_validate(
            {"model": "nano", "messages": [user("hello", PICTURE)], **fields}
        )


@pytest.mark.parametrize(
    "fields",
    [
        {"stop": None},
        {"stop": []},
        {"logprobs": False, "top_logprobs": None},
        {"tools": [], "tool_choice": "none", "parallel_tool_calls": False},
        {"response_format": {"type": "text"}},
        {"logit_bias": {}},
        {"modalities": ["text"]},
        {"stream": True, "stream_options": {"include_usage": False}},
        {"stream_options": None},
        {"metadata": {"a": "b"}},
    ],
)
def test_values_that_ask_for_nothing_are_taken(fields: dict):
    assert chat.parse(request(user("hello", PICTURE), **fields), 16).question == "hello"


def test_only_the_beginning_of_a_text_is_looked_at(monkeypatch: pytest.MonkeyPatch):
    looked: list[int] = []

    class Pattern:
        def match(self, text: str) -> None:
            looked.append(len(text))

    monkeypatch.setattr(chat, "_CAPTION", [("en", Pattern())])
    assert chat.task_of("please " * 4000) == ("vqa", None)
    assert max(looked) <= chat.MAX_READ


def test_politeness_is_read_once():
    # A pattern that takes it back word by word for each ending would take hours, not too long.
    assert "*+" in chat._POLITE
    assert chat.task_of("please " * 20 + "describe it") == ("caption", "en")


def test_a_text_that_is_far_too_long_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(chat, "task_of", None)
    with pytest.raises(problems.Problem) as caught:
        chat.parse(request(user("please " * 4000, PICTURE)), 16)
    assert (caught.value.code, caught.value.field) == ("text-too-long", "messages")
