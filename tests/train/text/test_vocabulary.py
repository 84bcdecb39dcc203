"""A run's vocabulary: a smoke run, which sees few texts, has one of its own."""

import dataclasses

import pytest

from mmllm.data import vocabulary
from mmllm.train.text import vocabulary as vocabulary_lib
from tests import tiny_corpora
from tests.tiny_corpora import CONFIG


@pytest.fixture
def corpora(tmp_path, monkeypatch):
    return tiny_corpora.install(tmp_path, monkeypatch)


def test_a_smoke_run_leaves_the_vocabulary_of_real_runs_alone(corpora):
    few = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, limit=3))
    vocabulary_lib.make(few, lambda line: None)
    assert vocabulary.exists("tiny-limit3")
    assert not vocabulary.exists("tiny")
