"""Whatever is done to a file or a text, it is decoded as promised or refused with a problem."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmllm.serve import messages, problems
from mmllm.serve.guard import pictures, texts
from tests.security import bombs

LIMITS = pictures.Limits(100_000, 1_000_000, 4_000, 1, ("JPEG", "PNG", "WEBP"))
GOOD = list(bombs.good().values())
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 16), st.binary(max_size=8)), max_size=6)


def edited(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Replaces, at each place, some bytes by others."""
    for place, length, new in edits:
        start = int(place * len(data))
        data = data[:start] + new + data[start + length :]
    return data


def decoded_or_refused(data: bytes) -> None:
    try:
        picture = pictures.decode(data, LIMITS)
    except problems.Problem as problem:
        problems.document(problem)
    else:
        assert picture.image.mode == "RGB"
        assert picture.width * picture.height <= LIMITS.max_pixels
        assert picture.image.info == {}


@settings(max_examples=300)
@given(st.sampled_from(GOOD), EDITS)
def test_an_edited_file_is_decoded_or_refused(data, edits):
    decoded_or_refused(edited(data, edits))


@given(
    st.sampled_from([b"", b"\xff\xd8\xff", bombs.PNG_MARK, b"RIFF\0\0\0\0WEBPVP8 "]), st.binary()
)
def test_any_bytes_are_decoded_or_refused(mark, data):
    decoded_or_refused(mark + data)


@given(st.text(), st.sampled_from(["", "data:", "data:image/png;base64,", "http://"]), st.binary())
def test_any_data_uri_is_read_or_refused(text, head, data):
    for uri in (head + text, head + base64.b64encode(data).decode() + text):
        try:
            read = pictures.from_data_uri(uri, LIMITS)
        except problems.Problem as problem:
            problems.document(problem)
        else:
            assert not uri.startswith("http://")
            decoded_or_refused(read)


@given(st.text(st.characters(exclude_categories=[])), st.sampled_from(messages.LANGUAGES))
def test_any_text_is_cleaned_or_refused_in_every_language(text, language):
    try:
        cleaned = texts.clean("text", text, 100)
    except problems.Problem as problem:
        problems.response(problem, language)
    else:
        assert 0 < len(cleaned) <= 100
        assert not set(cleaned) & set("\0\t\n\x1b\x85\u200b\u202e\u2066\ud800\udfff")


@pytest.mark.parametrize("data", GOOD)
def test_every_single_bit_of_a_header_may_flip(data):
    for place in range(min(48, len(data))):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            decoded_or_refused(bytes(flipped))
