"""One entry a corpus: nothing else names one, and a toy corpus needs no more than that."""

import dataclasses
import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from configs import mobile, nano, nano_half, tiny
from configs.quant import ablation, int2, mixed
from mmllm.common import config as config_lib
from mmllm.data import registry, sources, transforms
from mmllm.data.corpora import build
from mmllm.data.lexicons import wordnet
from mmllm.train import pipeline
from mmllm.train.run import Run
from mmllm.train.text import teacher
from tests import tiny_corpora, tiny_teacher

ROOT = Path(__file__).resolve().parents[2]
CONFIG = config_lib.resolve(tiny.get_config())
# Examples of a step from each corpus, as configs counted them before they had a mixture.
HALF = {"emoji": 8, "stamps": 2, "composites": 3}, {"composites": 16, "easy_vqa": 6}, 20, 64, 32, 64
WHOLE = (
    {"emoji": 16, "stamps": 4, "composites": 6},
    {"composites": 32, "easy_vqa": 12},
    40,
    128,
    32,
    128,
)
TINY = {"emoji": 4, "stamps": 2, "composites": 2}, {"composites": 4, "easy_vqa": 4}, 8, 4, 2, 8


@pytest.mark.parametrize(
    ("module", "counts"),
    [
        (tiny, TINY),
        (nano, WHOLE),
        (mobile, WHOLE),
        (int2, WHOLE),
        (mixed, WHOLE),
        (nano_half, HALF),
        (ablation, HALF),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_step_has_as_many_examples_of_each_corpus_as_ever(module, counts):
    config = config_lib.resolve(module.get_config())
    registry.check(config)
    captions, questions, lines, names, spoken, texts = counts
    batch = config.batch
    assert registry.counts(config, "caption", batch.captions) == captions
    assert registry.counts(config, "question", batch.questions) == questions
    assert registry.counts(config, "line", batch.lines) == {"ocr_lines": lines}
    assert (batch.names, batch.spoken, batch.texts) == (names, spoken, texts)


def test_shares_are_whole_sum_up_and_favour_the_largest_remainder():
    assert registry.shares({"a": 1.0, "b": 1.0, "c": 1.0}, 4) == {"a": 2, "b": 1, "c": 1}
    assert registry.shares({"a": 5.0, "b": 3.0, "c": 2.0}, 7) == {"a": 4, "b": 2, "c": 1}
    assert registry.shares({"a": 0.5, "b": 99.5}, 3) == {"a": 0, "b": 3}
    assert registry.shares({}, 0) == {}


def test_no_two_corpora_share_the_seed_of_their_views():
    seeds = [each.seed for each in registry.CORPORA.values()]
    assert len(set(seeds)) == len(seeds)


def test_every_entry_can_be_used():
    for name, each in registry.CORPORA.items():
        assert each.name == name
        assert each.augmentation in transforms.AUGMENTATIONS
        assert set(each.tasks) <= set(registry.TASKS)
        assert hasattr(build.module_of(name), each.builder)


def test_an_unknown_corpus_in_a_config_is_named_with_the_allowed_ones():
    for changes in (
        {"mix": {"emojis": 1.0}},
        {"data": dataclasses.replace(CONFIG.data, views={"emojis": 1})},
    ):
        config = dataclasses.replace(CONFIG, **changes)
        with pytest.raises(ValueError, match=r"emojis is no corpus; allowed: emoji, stamps, ocr_"):
            registry.mixture(config)


def test_views_are_those_of_the_entry_unless_the_config_says_otherwise():
    assert registry.views(CONFIG, "emoji") == 8
    data = dataclasses.replace(CONFIG.data, views={"emoji": 2})
    assert registry.views(dataclasses.replace(CONFIG, data=data), "emoji") == 2


def test_a_corpus_with_a_weight_and_no_examples_asked_is_fine():
    batch = dataclasses.replace(CONFIG.batch, lines=0)
    registry.check(dataclasses.replace(CONFIG, batch=batch))


def test_a_weight_that_gives_no_example_is_refused():
    config = config_lib.resolve(tiny.get_config())
    small = dataclasses.replace(config, mix={**config.mix, "easy_vqa": 1e-6})
    with pytest.raises(ValueError, match="mix.easy_vqa = 1e-06 gives it no example of batch.ques"):
        registry.check(small)


def test_negatives_need_names():
    config = config_lib.resolve(tiny.get_config())
    batch = dataclasses.replace(config.batch, names=0, spoken=0, texts=0, captions=0, lines=0)
    sampled = dataclasses.replace(config.prototypes, negatives=4)
    nameless = dataclasses.replace(config, mix={"easy_vqa": 1.0}, batch=batch, prototypes=sampled)
    with pytest.raises(ValueError, match="prototypes.negatives is 4, but no corpus .* has names"):
        registry.check(nameless)


def test_nothing_else_in_the_package_names_a_corpus():
    # The benchmark's rows are made of corpora, and a corpus may name itself and its parts.
    allowed = ("data/registry.py", "data/corpora/", "evaluate/", "common/config/parse.py")
    other = ("commands/folder_index.py",)  # its stamps are those of files
    names = "|".join(registry.CORPORA)
    naming = re.compile(rf"[\"'.]({names})[\"'\b]|\.({names})\b")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((ROOT / "mmllm").rglob("*.py"))
        if not path.relative_to(ROOT / "mmllm").as_posix().startswith((*allowed, *other))
        for line in path.read_text().splitlines()
        if naming.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.fixture
def ten(monkeypatch, tmp_path):
    """The one entry of a corpus whose builder is tests/data/ten_pictures.py."""
    spec = registry.CorpusSpec(
        name="ten_pictures",
        module="ten_pictures",
        builder="TenPictures",
        summary="ten squares with captions and questions",
        tasks=("caption", "name", "question"),
        licence="CC0-1.0",
        views=1,
        augmentation="photo",
        seed=1_001,
    )
    monkeypatch.setattr(registry, "CORPORA", {**registry.CORPORA, "ten_pictures": spec})
    # In the package the builder would lie in mmllm/data/corpora.
    module = importlib.import_module("tests.data.ten_pictures")
    monkeypatch.setitem(sys.modules, "mmllm.data.corpora.ten_pictures", module)
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path))
    words = [
        f"{colour} {thing}" for colour in tiny_corpora.COLOURS for thing in tiny_corpora.THINGS
    ]
    glosses = [(word, f"a {word}") for word in words]
    monkeypatch.setattr(wordnet, "noun_glosses", lambda max_senses, categories: glosses)
    monkeypatch.setattr(teacher.SentenceTeacher, "load", tiny_teacher.Teacher)


def test_a_corpus_needs_one_file_one_entry_and_one_line_to_be_trained_on(ten, tmp_path):
    assert build.build(["ten_pictures"], progress=lambda line: None) == ["ten_pictures"]
    assert len(sources.load("ten_pictures", "train")) == 10
    cfg = tiny.get_config()
    cfg.mix = {"ten_pictures": 1.0}  # the one line
    cfg.batch.lines = 0  # it has none
    cfg.data.vocabulary = "ten"
    cfg.model.vocab_size = 400
    cfg.data.dictionary_words = 220
    cfg.train.steps = 3
    run = Run(config=config_lib.resolve(cfg), workdir=tmp_path / "run", report=lambda line: None)
    pipeline.train(run)
    assert run.trained
    assert len(run.arrays.captioned["ten_pictures"].features) == 2
    assert run.arrays.captioned["ten_pictures"].label.tolist() == list(range(10))
    assert np.isfinite(run.arrays.captioned["ten_pictures"].features[1]).all()
    assert (tmp_path / "run" / "tokenizer.model").is_file()
