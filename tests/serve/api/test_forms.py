import asyncio
import contextlib
import json

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from mmllm.serve import problems
from mmllm.serve.api import chat, forms, schemas

BOUNDARY = "x-boundary"
HEADER = f"multipart/form-data; boundary={BOUNDARY}"
PICTURE = b"\x89PNG\r\n\x1a\n and so on"


def request(body: bytes, content_type: str | None) -> Request:
    async def receive() -> dict:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [] if content_type is None else [(b"content-type", content_type.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def form(*parts: tuple[str, bytes, str | None]) -> bytes:
    """The body of a form; a part with a file name is a file."""
    body = b""
    for name, value, file in parts:
        place = f'form-data; name="{name}"' + (f'; filename="{file}"' if file else "")
        head = f"--{BOUNDARY}\r\nContent-Disposition: {place}\r\n\r\n"
        body += head.encode() + value + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def read(body: bytes, content_type: str | None = HEADER, fields=schemas.CaptionFields, **how):
    return asyncio.run(forms.read(request(body, content_type), fields, **how))


def code(body: bytes, content_type: str | None = HEADER, fields=schemas.CaptionFields, **how):
    with pytest.raises(problems.Problem) as caught:
        read(body, content_type, fields, **how)
    return caught.value.code, caught.value.field


def test_a_form_gives_its_file_and_its_fields():
    parts = [("language", b"de", None), ("image", PICTURE, "a.png"), ("beam", b"2", None)]
    result = read(form(*parts))
    assert result.image == PICTURE
    assert (result.fields.language, result.fields.beam) == ("de", 2)


def test_json_gives_its_picture_as_text_and_its_fields():
    body = json.dumps({"image": "data:image/png;base64,AAAA", "language": "de"}).encode()
    result = read(body, "application/json; charset=utf-8")
    assert result.image == "data:image/png;base64,AAAA"
    assert (result.fields.language, result.fields.beam) == ("de", 1)


def test_long_json_is_read_as_short_json_is():
    image = "A" * (2 * forms.INLINE_BYTES)
    assert read(json.dumps({"image": image}).encode(), "application/json").image == image


def test_a_large_file_stays_in_memory(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a picture went to a disk")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    large = bytes(3_000_000)
    assert read(form(("image", large, "a.png"))).image == large


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "image/png", "application/jsonx"])
def test_another_media_type_is_refused(content_type: str | None):
    assert code(b"{}", content_type)[0] == "unsupported-media-type"


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ([("image", PICTURE, "a.png"), ("other", b"1", None)], "other"),
        ([("image", PICTURE, None)], "image"),
        ([("picture", PICTURE, "a.png")], "picture"),
        ([("image", PICTURE, "a.png"), ("beam", b"9", None)], "beam"),
        ([("image", PICTURE, "a.png"), ("beam", b"two", None)], "beam"),
        ([("beam", b"1", None), ("beam", b"1", None), ("image", PICTURE, "a.png")], "beam"),
        ([("language", b"de", None)], "image"),
        ([], "image"),
    ],
)
def test_a_form_with_a_wrong_part_is_refused_by_its_name(parts: list, field: str):
    assert code(form(*parts)) == ("invalid-field", field)


@pytest.mark.parametrize(
    "body",
    [
        form(("image", PICTURE, "a.png"), ("image", PICTURE, "b.png")),
        form(*[("beam", b"1", None)] * 1000),
        form(("image", PICTURE, "a.png"))[:-20],
        b"--" + BOUNDARY.encode() + b"\r\nContent-Disposition: form-data\r\n\r\nx\r\n",
        b"nonsense",
    ],
)
def test_a_form_that_is_not_whole_or_holds_too_much_is_refused(body: bytes):
    assert code(body)[0] in ("bad-request", "invalid-field")


@pytest.mark.parametrize("charset", ["idna", "punycode", "utf-7", "zlib", "nonsense"])
def test_a_form_in_another_charset_is_refused(charset: str):
    body = form(("language", b"\xff-", None), ("image", PICTURE, "a.png"))
    assert code(body, f'{HEADER}; charset="{charset}"')[0] == "bad-request"


@pytest.mark.parametrize(
    "options",
    [
        "charset=utf-8; charset=punycode",
        "charset=punycode; charset=utf-8; charset=idna",
        "charset*=utf-8''punycode",
        "charset*0=puny; charset*1=code",
        'charset="puny\\code"',
        "CHARSET = punycode",
    ],
)
def test_no_spelling_of_a_charset_reaches_the_parser(options: str):
    body = form(("language", "é-".encode(), None), ("image", PICTURE, "a.png"))
    with contextlib.suppress(problems.Problem):
        assert read(body, f"{HEADER}; {options}").fields.language == "é-"


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf8"'])
def test_utf_8_may_be_named(charset: str):
    body = form(("language", b"de", None), ("image", PICTURE, "a.png"))
    assert read(body, f"{HEADER}; charset={charset}").fields.language == "de"


def read_json(body: bytes, schema=schemas.EmbedTextRequest):
    return asyncio.run(forms.read_json(request(body, "application/json"), schema))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"texts":[' + b"1," * 19_000 + b"1]}", "invalid-field"),
        (b'{"texts":[' + b'"a",' * 19_000 + b'"a"]}', "invalid-field"),
        (b'{"texts":[' + b"1," * 40_000 + b"1]}", "bad-request"),
        (b'{"texts":["a"]' + b"".join(b',"%d":1' % i for i in range(19_000)) + b"}", "bad-request"),
        (b'{"texts":["' + b"a" * forms.TEXT_BYTES + b'"]}', "body-too-large"),
    ],
    ids=["wrong items", "too many items", "too many values", "too many fields", "too many bytes"],
)
def test_json_of_too_much_is_refused_before_it_costs_much(body: bytes, expected: str):
    with pytest.raises(problems.Problem) as caught:
        read_json(body)
    assert caught.value.code == expected


def test_a_wrong_list_stops_at_its_first_wrong_item():
    with pytest.raises(pydantic.ValidationError) as caught:
        schemas.EmbedTextRequest.model_validate_json(b'{"texts":[1,2,3]}', strict=True)
    assert caught.value.error_count() == 1
    messages = [{"role": "user", "content": [{"type": "x"}, {"type": "y"}]}] * 50
    with pytest.raises(pydantic.ValidationError) as caught:
        chat.ChatRequest.model_validate({"model": "nano", "messages": messages})
    assert caught.value.error_count() <= 2  # no text, and no list of parts


def test_many_errors_are_not_listed():
    fields = {str(number): 1 for number in range(forms.MAX_ERRORS + 1)}
    with pytest.raises(pydantic.ValidationError) as caught:
        schemas.OcrFields.model_validate(fields)
    assert forms.problem(caught.value).code == "bad-request"


def test_a_form_without_a_boundary_is_refused():
    assert code(b"", "multipart/form-data")[0] == "bad-request"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "bad-request"),
        (b"[]", "bad-request"),
        (b"{", "bad-request"),
        (b"[" * 100_000, "bad-request"),
        (b'{"image": "\\ud800"}', "bad-request"),
        (b'{"image": "\xff"}', "bad-request"),
        (b"{}", "invalid-field"),
        (b'{"image": ""}', "invalid-field"),
        (b'{"image": null}', "invalid-field"),
        (b'{"image": ["a"]}', "invalid-field"),
        (b'{"image": "a", "beam": "2"}', "invalid-field"),
        (b'{"image": "a", "beam": true}', "invalid-field"),
        (b'{"image": "a", "beam": 1e400}', "invalid-field"),
        (b'{"image": "a", "other": 1}', "invalid-field"),
    ],
)
def test_json_that_is_not_what_the_schema_says_is_refused(body: bytes, expected: str):
    assert code(body, "application/json")[0] == expected


def test_an_optional_picture_may_be_missing_in_both_media_types():
    how = {"fields": schemas.SearchFields, "optional": True}
    assert read(form(("text", b"bus", None)), **how).image is None
    assert read(b'{"text": "bus"}', "application/json", **how).image is None


def test_a_wrong_field_is_named_but_its_value_is_not_repeated():
    with pytest.raises(problems.Problem) as caught:
        read(b'{"image": "secret-value", "beam": "secret-value"}', "application/json")
    told = problems.document(caught.value)
    assert told["field"] == "beam"
    assert "secret-value" not in json.dumps(told)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([HEADER, "application/json"]))
def test_any_body_is_read_or_refused(body: bytes, content_type: str):
    with contextlib.suppress(problems.Problem):
        read(body, content_type)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_mutation_of_a_form_is_read_or_refused(data: st.DataObject):
    body = bytearray(form(("language", b"de", None), ("image", PICTURE, "a.png")))
    for _ in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(problems.Problem):
        read(bytes(body))
