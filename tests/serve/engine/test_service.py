"""The service: every task from bytes to an answer."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from mmllm.serve import problems
from mmllm.serve.engine import service
from tests.serve.engines import Faults
from tests.serve.started import check, png, sample
from tests.serve.waiting import until

CLOSE = 1e-5  # float32 against the same numbers through JSON


def test_every_task_answers_as_the_model_does(settings, nano, picture_bytes, page_bytes):
    async def test(made: service.Service) -> None:
        caption = await made.caption(picture_bytes, language="de", beam=2)
        assert caption.text == nano.caption(picture_bytes, "de", beam=2)
        assert 0 < caption.score <= 1
        answer = await made.vqa(picture_bytes, "what  colour is it?")
        assert answer.text == nano.answer(picture_bytes, "what colour is it?")
        reading = await made.ocr(page_bytes)
        expected = nano.read_text(page_bytes)
        assert [(line.text, line.box) for line in reading.lines] == [
            (r.text, r.box) for r in expected
        ]
        assert len(reading.lines) == 2
        assert (reading.width, reading.height) == (240, 90)
        vectors = await made.embed_image(picture_bytes)
        np.testing.assert_allclose(vectors.vectors[0], nano.embed_image(picture_bytes), atol=CLOSE)
        texts = await made.embed_text(["a cat", "zwei Hunde"])
        np.testing.assert_allclose(
            texts.vectors, nano.embed_texts(["a cat", "zwei Hunde"]), atol=CLOSE
        )
        how = texts.made
        assert (how.model, how.fingerprint) == ("nano", nano.fingerprint)
        assert (how.engine, how.degraded, how.cached) == ("litert", False, False)
        times = caption.made.timings
        assert min(times) >= 0
        assert times.total_s >= times.decode_s + times.engine_s

    seen = check(settings, test)
    assert sample(seen, "mmllm_stage_seconds_count", task="caption", stage="decode") == 1
    assert sample(seen, "mmllm_stage_seconds_count", task="ocr", stage="total") == 1
    assert sample(seen, "mmllm_tokens_generated_total", task="caption") > 0
    labels = {"name": "nano", "fingerprint": nano.fingerprint[:12], "engine": "litert"}
    assert sample(seen, "mmllm_model_info", **labels) == 1


def test_a_picture_without_text_has_no_lines(settings):
    async def test(made: service.Service) -> None:
        assert (await made.ocr(png((50, 40)))).lines == ()

    check(settings, test)


def test_the_same_question_is_answered_once(settings, picture_bytes):
    async def test(made: service.Service) -> None:
        first = await made.caption(picture_bytes)
        again = await made.caption(picture_bytes)
        assert (again.text, again.score) == (first.text, first.score)
        assert not first.made.cached
        assert again.made.cached
        assert not (await made.caption(picture_bytes, language="de")).made.cached
        both = await asyncio.gather(*(made.vqa(picture_bytes, "what?") for _ in range(2)))
        assert sorted(answer.made.cached for answer in both) == [False, True]
        vectors = await made.embed_image(picture_bytes)
        assert (await made.embed_image(picture_bytes)).vectors == vectors.vectors

    seen = check(settings, test)
    assert sample(seen, "mmllm_batch_size_sum", task="caption") == 2
    assert sample(seen, "mmllm_cache_total", task="vqa", result="joined") == 1


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda made, image: made.caption(b"no picture"), "not-an-image"),
        (lambda made, image: made.caption(image[:300]), "image-truncated"),
        (lambda made, image: made.caption(image, language="xx"), "language-unknown"),
        (lambda made, image: made.vqa(image, "  "), "text-empty"),
        (lambda made, image: made.vqa(image, "a\0b"), "text-control"),
        (lambda made, image: made.vqa(image, "x" * 501), "text-too-long"),
        (lambda made, image: made.vqa(image, "q w e r t " * 40), "text-too-many-tokens"),
        (lambda made, image: made.caption(image, beam=9), "invalid-field"),
        (lambda made, image: made.vqa(image, "what?", beam=0), "invalid-field"),
        (lambda made, image: made.search(text="a", k=0), "invalid-field"),
        (lambda made, image: made.index_add("a", image, {"a": "\ud800"}), "invalid-field"),
        (lambda made, image: made.embed_text([]), "text-empty"),
        (lambda made, image: made.embed_text(["a"] * 65), "too-many-items"),
        (lambda made, image: made.embed_text(["a", "q w e r t " * 40]), "text-too-many-tokens"),
        (lambda made, image: made.caption(image, deadline_s=0.0), "deadline"),
        (lambda made, image: made.index_remove("nothing"), "entry-not-found"),
        (lambda made, image: made.reload("/nowhere"), "model-refused"),
    ],
)
def test_what_a_caller_does_wrong_is_a_problem(settings, picture_bytes, call, code: str):
    async def test(made: service.Service) -> None:
        with pytest.raises(problems.Problem) as raised:
            await call(made, picture_bytes)
        assert raised.value.code == code

    check(settings, test, Faults())


def test_pictures_are_found_by_words_and_by_pictures(settings, nano, picture_bytes, page_bytes):
    async def test(made: service.Service) -> None:
        added = await made.index_add("drawing", picture_bytes, {"title": "a drawing"})
        assert added.id == "drawing"
        await made.index_add("page", page_bytes, {})
        found = await made.search(image=picture_bytes, k=1)
        assert [(hit.id, hit.metadata) for hit in found.hits] == [
            ("drawing", {"title": "a drawing"})
        ]
        assert found.hits[0].score == pytest.approx(1.0, abs=CLOSE)
        by_words = await made.search(text="a drawing")
        assert [hit.id for hit in by_words.hits] != []
        expected = nano.similarity(picture_bytes, "a drawing")
        scores = {hit.id: hit.score for hit in by_words.hits}
        assert scores["drawing"] == pytest.approx(expected, abs=CLOSE)
        assert made.info().index_items == 2
        await made.index_remove("page")
        assert made.info().index_items == 1

    check(settings, test)


def test_an_index_that_cannot_be_opened_stops_nothing_else(make_settings, tmp_path, picture_bytes):
    (tmp_path / "file").write_text("in the way")

    async def test(made: service.Service) -> None:
        assert made.health.ready().ok
        assert (await made.caption(picture_bytes)).text
        with pytest.raises(problems.Problem, match="index-unavailable"):
            await made.search(text="a cat")
        (tmp_path / "file").unlink()  # and it is tried again
        assert (await made.search(text="a cat")).hits == ()

    check(make_settings(index_path=tmp_path / "file" / "index.sqlite"), test)


def test_streamed_pieces_join_to_the_answer(settings, nano, picture_bytes):
    async def test(made: service.Service) -> None:
        parts = [piece async for piece in made.stream(picture_bytes, language="de")]
        assert "".join(parts) == nano.caption(picture_bytes, "de")
        answer = [piece async for piece in made.stream(picture_bytes, question="what is it?")]
        assert "".join(answer) == nano.answer(picture_bytes, "what is it?")
        with pytest.raises(problems.Problem, match="not-an-image"):
            await anext(made.stream(b"no picture"))

    seen = check(settings, test)
    assert sample(seen, "mmllm_tokens_generated_total", task="stream") > 0


def test_a_slow_reader_does_not_hold_the_engine(make_settings, nano, picture_bytes):
    async def test(made: service.Service) -> None:
        stream = made.stream(picture_bytes)
        first = await anext(stream)
        # The one thread is free for others while the reader is in the middle.
        assert (await made.caption(picture_bytes)).text == nano.caption(picture_bytes)
        rest = [piece async for piece in stream]
        assert first + "".join(rest) == nano.caption(picture_bytes)
        await stream.aclose()  # type: ignore[attr-defined]
        left = made.stream(picture_bytes, language="fr")
        await anext(left)
        await left.aclose()  # type: ignore[attr-defined]

    check(make_settings(engine_threads=1), test)


def test_readers_get_what_the_service_says_of_itself(settings, nano):
    async def test(made: service.Service) -> None:
        info = made.info()
        assert (info.model, info.fingerprint, info.engine) == ("nano", nano.fingerprint, "litert")
        assert info.languages == nano.languages
        assert (info.embedding_dimensions, info.index_items, info.degraded) == (256, 0, False)

    check(settings, test)


def test_a_reload_under_load_fails_no_request(settings, other_bundle: Path, picture_bytes):
    async def test(made: service.Service) -> None:
        old = made.info().fingerprint
        await made.index_add("old", picture_bytes, {})
        stop, prints = asyncio.Event(), []

        async def client(number: int) -> None:
            while not stop.is_set():
                texts = [f"{number} {len(prints)}"]
                prints.append((await made.embed_text(texts)).made.fingerprint)
                await made.search(text=texts[0])

        clients = [asyncio.create_task(client(number)) for number in range(4)]
        await until(lambda: prints)
        info = await made.reload(str(other_bundle))
        await until(lambda: prints[-1] == info.fingerprint)
        stop.set()
        await asyncio.gather(*clients)
        assert set(prints) == {old, info.fingerprint}
        assert (await made.search(text="a")).hits == ()  # vectors of another model
        await made.reload("nano")
        assert [hit.id for hit in (await made.search(text="a")).hits] == ["old"]

    check(settings, test)
