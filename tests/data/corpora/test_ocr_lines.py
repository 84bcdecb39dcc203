import io

import pytest
from PIL import Image

pytest.importorskip("tensorflow_datasets")
from mmllm.data import sources  # noqa: E402
from mmllm.data.corpora import build, ocr_lines  # noqa: E402
from mmllm.data.synthetic import fonts, phrases  # noqa: E402

PLAN = ocr_lines.Plan(6, "train", "train")


@pytest.fixture(autouse=True)
def fresh_words():
    phrases.words.cache_clear()
    yield
    phrases.words.cache_clear()


def test_a_job_draws_its_share_of_the_lines(toy_fonts, monkeypatch):
    monkeypatch.setattr(ocr_lines, "LINES_A_JOB", 4)
    first, second = (ocr_lines.draw_job(PLAN, "train", start) for start in (0, 4))
    assert [line.key for line in (*first, *second)] == [f"train/{i}" for i in range(6)]


def test_a_line_depends_on_its_number_not_on_its_job(toy_fonts, monkeypatch):
    together = ocr_lines.draw_job(PLAN, "train", 0)
    monkeypatch.setattr(ocr_lines, "LINES_A_JOB", 1)
    assert ocr_lines.draw_job(PLAN, "train", 5) == together[5:6]


def test_lines_are_jpeg_pictures_of_short_texts(toy_fonts):
    for line in ocr_lines.draw_job(PLAN, "train", 0):
        with Image.open(io.BytesIO(line.image)) as picture:
            assert picture.format == "JPEG"
            assert picture.mode == "RGB"
        assert 1 <= len(line.text) <= 24
        assert line.family.name == "Known"


def test_tests_use_unseen_fonts_and_words(toy_fonts):
    for name in ("unseen_print", "unseen_print_clean"):
        plan = ocr_lines.PLANS[name]
        assert (plan.fonts, plan.words) == ("unseen_print", "test")
        source = ocr_lines.Source(plan)
        assert {source.line(name, i).family.name for i in range(8)} == {"Unseen"}
    assert ocr_lines.PLANS["unseen_script"].fonts == "unseen_script"
    assert not ocr_lines.PLANS["unseen_print_clean"].noisy


def test_capital_fonts_get_capitals_and_handwriting_seldom_does():
    import random

    rng = random.Random(0)
    upper = fonts.Family("display", "x", "X", True, "", "p", ("f",))
    script = fonts.Family("script", "x", "X", False, "", "p", ("f",))
    printed = fonts.Family("print", "x", "X", False, "", "p", ("f",))
    assert ocr_lines.fitting("Word", upper, rng) == "WORD"
    assert ocr_lines.fitting("WORD", printed, rng) == "WORD"
    written = [ocr_lines.fitting("TWO WORDS", script, rng) for _ in range(400)]
    assert set(written) == {"TWO WORDS", "Two Words"}
    assert 60 < written.count("TWO WORDS") < 140


def test_a_plan_without_a_usable_font_fails_clearly(toy_fonts, monkeypatch):
    monkeypatch.setattr(fonts.Family, "can_draw", lambda self, text: False)
    with pytest.raises(ValueError, match="no font of split 'train' draws line 0"):
        ocr_lines.Source(PLAN).line("train", 0)


def test_the_record_names_font_package_and_licence(toy_fonts):
    record = ocr_lines.record(ocr_lines.draw_job(PLAN, "train", 0)[0])
    assert record["source"].startswith("fonts-hack ")
    assert record["licence"]
    credit = build.attribution(record, ocr_lines)
    assert set(credit) == {"id", "source", "author", "licence"}
    assert all(credit.values())


def test_the_builder_writes_every_split(toy_fonts, monkeypatch, tmp_path):
    class Inline:
        def __init__(self, *args, **kwargs):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *args):
            return None

        def map(self, work, *items):
            return map(work, *items)

    plans = {
        "train": PLAN,
        "unseen_print_clean": ocr_lines.Plan(3, "unseen_print", "test", noisy=False),
    }
    monkeypatch.setattr(ocr_lines, "PLANS", plans)
    monkeypatch.setattr(ocr_lines, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(ocr_lines, "PACKAGES", ())
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path))
    build.build(["ocr_lines"], progress=lambda line: None)
    rows = sources.load("ocr_lines", "unseen_print_clean")
    assert len(rows) == 3
    assert len(sources.load("ocr_lines", "train")) == 6
    assert rows[0]["image"].shape[2] == 3
    assert rows[0]["font"] == "Unseen"
