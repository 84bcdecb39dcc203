"""What runs in threads: it must be what the model does, whatever shares the batch."""

import numpy as np
import pytest

from mmllm.data import images as images_lib
from mmllm.runtime import model as model_lib
from mmllm.serve import problems
from mmllm.serve.engine import tasks
from mmllm.serve.guard import pictures


@pytest.fixture
def limits(settings) -> pictures.Limits:
    return pictures.limits_of(settings)


def test_a_square_is_what_the_model_makes_of_the_picture(nano, picture_bytes, limits):
    pixels = tasks.square(picture_bytes, limits, nano.config.image_side)
    np.testing.assert_array_equal(pixels, nano.pixels([picture_bytes])[0])
    np.testing.assert_array_equal(images_lib.to_square(pixels), pixels)  # again changes nothing


def test_a_page_is_read_as_the_model_reads_it(nano, page_bytes, limits):
    page = tasks.page(page_bytes, limits, nano.config)
    (read,) = tasks.crops(nano, [page.crops])
    assert model_lib.regions_of(page.lines, read) == nano.read_text(page_bytes)
    assert (page.width, page.height) == (240, 90)


def test_what_is_no_picture_is_a_problem(nano, limits):
    with pytest.raises(problems.Problem):
        tasks.square(b"no picture", limits, 224)
    with pytest.raises(problems.Problem):
        tasks.page(b"no picture", limits, nano.config)


def test_captions_of_many_languages_share_a_batch(nano, picture_bytes, page_bytes, limits):
    one, other = (tasks.square(data, limits, 224) for data in (picture_bytes, page_bytes))
    items = [
        tasks.CaptionItem(one, "en", 1),
        tasks.CaptionItem(other, "de", 1),
        tasks.CaptionItem(one, "de", 2),
        tasks.CaptionItem(other, "en", 1),
    ]
    together = tasks.captions(nano, items)
    assert [scored.text for scored in together] == [
        nano.caption(item.pixels, item.language, beam=item.beam) for item in items
    ]


def test_questions_share_a_batch(nano, picture_bytes, limits):
    pixels = tasks.square(picture_bytes, limits, 224)
    items = [tasks.QuestionItem(pixels, text, beam) for text, beam in (("what?", 1), ("who?", 2))]
    together = tasks.answers(nano, items)
    assert [scored.text for scored in together] == [
        nano.answer(pixels, item.question, beam=item.beam) for item in items
    ]


def test_vectors_come_back_to_their_own_request(nano, picture_bytes, page_bytes, limits):
    pixels = [tasks.square(data, limits, 224) for data in (picture_bytes, page_bytes)]
    one, other = tasks.image_vectors(nano, pixels)
    np.testing.assert_array_equal(one, nano.embed_images(pixels[:1]))
    np.testing.assert_array_equal(other, nano.embed_images(pixels[1:]))
    parts = tasks.text_vectors(nano, [("a", "b"), ("c",)])
    assert [len(part) for part in parts] == [2, 1]
    np.testing.assert_array_equal(parts[1], nano.embed_texts(["c"]))


def test_crops_of_several_pages_come_back_to_their_own(nano, page_bytes, limits):
    crops = tasks.page(page_bytes, limits, nano.config).crops
    parts = tasks.crops(nano, [crops[:1], [], crops])
    assert [len(part) for part in parts] == [1, 0, len(crops)]
    assert parts[0] == parts[2][:1]


def test_a_stream_has_the_model_for_itself(nano):
    assert tasks.alone(nano, [lambda model: model.manifest["name"]]) == ["nano"]
