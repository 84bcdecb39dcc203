"""The public interface on a tiny random model: shapes, batching, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import mmllm
from mmllm import bundle
from mmllm.runtime import model as model_lib
from mmllm.runtime import prompts
from mmllm.runtime.model import MobileMultiModalLLM
from tests import tiny_bundle

TOLERANCE = 2e-5  # float32 sums in another order


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [picture(seed) for seed in range(3)]


@pytest.mark.parametrize("beam", [1, 3])
def test_a_batch_of_captions_equals_one_at_a_time(model, pictures, beam: int):
    together = model.caption_batch(pictures, "de", beam=beam)
    assert together == [model.caption(image, "de", beam=beam) for image in pictures]
    assert all(isinstance(text, str) and text == text.strip() for text in together)


def test_no_task_token_is_ever_generated(model, pictures):
    for image in pictures:
        assert "<" not in model.caption(image)


def test_streamed_pieces_join_to_the_caption(model, pictures):
    for image in pictures:
        assert "".join(model.stream_caption(image, "de")) == model.caption(image, "de")


def test_streamed_pieces_join_to_the_answer(model, pictures):
    for image in pictures:
        question = "what colour is it?"
        assert "".join(model.stream_answer(image, question)) == model.answer(image, question)


def test_scores_are_probabilities(model, pictures):
    for scored in model.scored_captions(pictures):
        assert 0 < scored.score <= 1


def test_questions_of_different_length_share_a_batch(model, pictures):
    questions = ["a cat?", "how many circles are there?", "what colour is the violin?"]
    together = model.answer_batch(pictures, questions)
    alone = [model.answer(i, q) for i, q in zip(pictures, questions, strict=True)]
    assert together == alone


@pytest.mark.parametrize("beam", [1, 2])
def test_a_long_question_beside_it_shortens_no_answer(model, pictures, beam: int):
    """The longest question that fits leaves room for eight tokens, the short one for more."""
    assert_no_batch_mates(model, pictures, beam)


@pytest.mark.export
@pytest.mark.parametrize("beam", [1, 2])
def test_nor_does_it_through_litert(made, pictures, beam: int):
    lite = MobileMultiModalLLM.from_pretrained(made.folder, "litert", threads=1)
    assert_no_batch_mates(lite, pictures, beam)


def assert_no_batch_mates(model, pictures: list[Image.Image], beam: int) -> None:
    questions = ["a cat?", "what colour is the " + "violin " * 3 + "car?", "how many?"]
    while True:
        longer = questions[1].replace("?", " car?")
        try:
            prompts.question(model.tokenizer, longer, model.config.max_text)
        except ValueError:
            break
        questions[1] = longer
    together = model.scored_answers(pictures, questions, beam=beam)
    for image, question, scored in zip(pictures, questions, together, strict=True):
        (alone,) = model.scored_answers([image], [question], beam=beam)
        assert scored.text == alone.text
        assert scored.score == pytest.approx(alone.score, rel=1e-4)
    room = model.config.max_text - len(
        prompts.question(model.tokenizer, questions[1], model.config.max_text)
    )
    assert room < model_lib.ANSWER_TOKENS


def test_many_questions_about_one_picture_encode_it_once(model, pictures, monkeypatch):
    seen = []
    encode = model.engine.encode_image

    def counted(pixels: np.ndarray) -> np.ndarray:
        seen.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(model.engine, "encode_image", counted)
    model.answer_batch([pictures[0], pictures[1], pictures[0]], ["a", "b", "c"])
    assert seen == [2]


def test_embeddings_are_unit_vectors_and_similarity_their_cosine(model, pictures):
    images = model.embed_images(pictures)
    texts = model.embed_texts(["a red bus", "a cat"])
    assert images.shape == (3, tiny_bundle.CONFIG.embed_dim)
    np.testing.assert_allclose(np.linalg.norm(images, axis=-1), 1, atol=TOLERANCE)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=-1), 1, atol=TOLERANCE)
    np.testing.assert_allclose(model.embed_image(pictures[1]), images[1], atol=TOLERANCE)
    cosine = model.similarity(pictures[1], "a cat")
    assert cosine == pytest.approx(float(images[1] @ texts[1]), abs=TOLERANCE)


def test_empty_batches_give_empty_answers(model):
    assert model.caption_batch([]) == []
    assert model.answer_batch([], []) == []
    assert model.read_lines_batch([]) == []
    assert model.embed_images([]).shape == (0, tiny_bundle.CONFIG.embed_dim)
    assert model.embed_texts([]).shape == (0, tiny_bundle.CONFIG.embed_dim)


def test_reading_a_page_gives_regions_with_boxes(model, monkeypatch):
    page = Image.new("RGB", (300, 120), "white")
    draw = ImageDraw.Draw(page)
    draw.text((20, 20), "hello world", fill="black", font_size=20)
    draw.text((20, 70), "again", fill="black", font_size=20)
    monkeypatch.setattr(
        model,
        "scored_lines",
        lambda crops: [model_lib.Scored(f"line {i}", 0.5) for i in range(len(crops))],
    )
    regions = model.read_text(page)
    assert [region.text for region in regions] == ["line 0", "line 1"]
    assert regions[0].box[3] <= regions[1].box[1]
    assert all(region.score == 0.5 for region in regions)


def test_a_long_line_is_read_in_pieces_and_joined(model, monkeypatch):
    page = Image.new("RGB", (900, 60), "white")
    ImageDraw.Draw(page).text((10, 15), "many words " * 7, fill="black", font_size=24)
    crops = []

    def read(images: list) -> list[model_lib.Scored]:
        crops.extend(images)
        return [model_lib.Scored("many words", 0.9) for _ in images]

    monkeypatch.setattr(model, "scored_lines", read)
    (region,) = model.read_text(page)
    assert len(crops) > 1
    assert region.text == " ".join(["many words"] * len(crops))


def test_a_blank_picture_has_no_text(model):
    assert model.read_text(Image.new("RGB", (50, 50), "white")) == []


def test_lines_are_read_in_batches(model):
    texts = model.read_lines_batch([Image.new("L", (80, 10), 200)] * 70)
    assert len(texts) == 70
    assert len(set(texts)) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, i: m.caption(i, "xx"), "language must be one of en, de, got 'xx'"),
        (lambda m, i: m.caption(i, "fr"), "language must be one of en, de, got 'fr'"),
        (lambda m, i: m.caption(i, beam=9), "beam must be 1 to 8, got 9"),
        (lambda m, i: m.answer(i, ""), "question must not be empty"),
        (lambda m, i: m.answer(i, "x" * 10_000), "at most 500 characters"),
        (lambda m, i: m.answer_batch([i], []), "as many, got 1 and 0"),
        (lambda m, i: m.embed_text("\x00"), "control characters"),
        (lambda m, i: m.caption(b""), "empty"),
    ],
)
def test_bad_input_is_refused_in_one_line(model, pictures, call, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        call(model, pictures[0])
    assert "\n" not in str(caught.value)


def test_an_unknown_model_lists_those_that_ship(monkeypatch, tmp_path: Path, bundle_folder: Path):
    monkeypatch.setattr(model_lib, "ZOO", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no model 'nano'.*none in this installation"):
        MobileMultiModalLLM.from_pretrained("nano")
    shutil.copytree(bundle_folder, tmp_path / "small")
    with pytest.raises(FileNotFoundError, match=r"\(small\)"):
        MobileMultiModalLLM.from_pretrained("nano")
    assert model_lib.locate("small") == tmp_path / "small"


def test_an_unknown_engine_is_refused(bundle_folder: Path):
    with pytest.raises(ValueError, match="engine must be one of litert, jax, got 'abacus'"):
        MobileMultiModalLLM.from_pretrained(bundle_folder, engine="abacus")


def test_a_damaged_bundle_is_refused(bundle_folder: Path, tmp_path: Path):
    folder = Path(shutil.copytree(bundle_folder, tmp_path / "tiny"))
    (folder / bundle.WEIGHTS).write_bytes(b"")
    with pytest.raises(ValueError, match="damaged"):
        MobileMultiModalLLM.from_pretrained(folder)


def test_the_public_names_are_the_real_ones():
    assert mmllm.MobileMultiModalLLM is MobileMultiModalLLM
    assert mmllm.TextRegion is model_lib.TextRegion
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mmllm.nothing


@pytest.mark.parametrize(
    ("engine", "threads", "message"),
    [
        (None, 0, "threads must be a whole number from 1 to 256, got 0"),
        (None, 257, "threads must be a whole number from 1 to 256, got 257"),
        (None, True, "threads must be a whole number from 1 to 256, got True"),
        ("jax", 2, "threads goes with engine 'litert', got 2 with 'jax'"),
    ],
)
def test_threads_that_cannot_be_are_refused(engine, threads, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        MobileMultiModalLLM.from_pretrained("nano", engine, threads)
