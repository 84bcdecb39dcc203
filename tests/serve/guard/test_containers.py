"""Real files pass, whatever follows them; files of too many parts do not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmllm.serve.guard import containers
from tests.security import bombs

GOOD = bombs.good()


@pytest.mark.parametrize("kind", GOOD)
def test_real_files_pass(kind):
    assert not containers.too_complex(GOOD[kind])


def test_the_limits_are_far_from_what_encoders_make():
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8))
    for data in (bombs.saved(large, "JPEG", progressive=True), bombs.saved(large, "PNG")):
        assert len(data) > 300_000
        assert not containers.too_complex(data)


def test_as_many_passes_as_allowed_pass_and_one_more_does_not():
    made = bombs.passes(0).count(b"\xff\xda")
    assert not containers.too_complex(bombs.passes(containers.MAX_PASSES - made))
    assert containers.too_complex(bombs.passes(containers.MAX_PASSES - made + 1))


def large(passes: int, side: int) -> bytes:
    """A JPEG that declares a large side and has so many scans."""
    data = bombs.passes(passes - bombs.passes(0).count(b"\xff\xda"))
    frame = data.index(b"\xff\xc2") + 5
    return data[:frame] + 2 * side.to_bytes(2) + data[frame + 4 :]


def test_the_larger_a_picture_the_fewer_passes_it_may_have():
    usual, limit = containers.USUAL_PASSES, containers.MAX_PASSES
    assert not containers.too_complex(large(usual, 7_000))  # what encoders make passes always
    assert not containers.too_complex(large(usual, 5_000))
    assert containers.too_complex(large(usual + 1, 5_000))
    assert not containers.too_complex(large(usual + 1, 4_800))
    assert containers.too_complex(large(limit, 1_733))
    assert not containers.too_complex(large(limit, 1_732))


@pytest.mark.parametrize(
    "filling", [b"\xff\xfe\x00\x02", b"\xff\x01", b"\xff\xd0", b"\xff", b"\x01", b"\xff\x00"]
)
def test_no_filling_before_the_pixels_passes_in_numbers(filling):
    assert not containers.too_complex(bombs.segments(filling, 100))
    assert containers.too_complex(bombs.segments(filling, containers.MAX_PARTS))


def test_a_png_of_many_chunks_is_too_complex():
    assert not containers.too_complex(bombs.chunks(1_000))
    assert containers.too_complex(bombs.chunks(containers.MAX_PARTS))


def test_what_follows_the_picture_is_not_counted():
    # Phones append a video to a photograph; its bytes look like anything.
    video = bytes(np.random.default_rng(0).integers(0, 256, 20_000_000, np.uint8))
    assert not containers.too_complex(GOOD["JPEG"] + video)
    assert not containers.too_complex(GOOD["PNG"] + video)


def test_a_preview_within_a_tag_is_not_counted():
    preview = bombs.saved(bombs.picture(), "JPEG", progressive=True)
    tag = b"\xff\xe1" + (len(preview) + 2).to_bytes(2) + preview
    assert not containers.too_complex(bombs.segments(tag, 50))


PIECES = st.sampled_from(
    [b"\xff", b"\0", b"\2", b"\1", b"\xda", b"\xd9", b"\xd0", b"IEND", b"IDAT"]
)


@given(
    st.sampled_from([containers.JPEG, containers.PNG, b""]),
    st.lists(st.one_of(PIECES, st.binary())),
)
def test_a_small_file_is_never_too_complex(mark, pieces):
    data = mark + b"".join(pieces)
    assert not containers.too_complex(data[: containers.MAX_PASSES])


def test_a_stray_end_is_counted_as_long_as_it_is():
    assert not containers.too_complex(b"\xff\xd8\xff\xe0\0\2" + b"\1" * 100)
