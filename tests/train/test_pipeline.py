"""The order of the phases, and what a run leaves when it is finished."""

import dataclasses
import json

import jax
import pytest

from mmllm.common import tensors
from mmllm.train import pipeline
from mmllm.train import run as run_lib
from mmllm.train.phases import prepare
from mmllm.train.run import Run
from mmllm.train.student import start
from mmllm.train.text import vocabulary as vocabulary_lib
from tests import tiny_corpora, tiny_run


def test_the_phases_have_their_names_and_their_order():
    names = [phase.__name__.rpartition(".")[2] for phase in pipeline.PHASES]
    assert names == [
        "prepare",
        "tune_backbone",
        "quantize_backbone",
        "cache_features",
        "multitask",
        "align_text",
    ]
    for phase in pipeline.PHASES:
        assert "leaves" in (phase.__doc__ or "").lower(), phase.__name__


@pytest.mark.slow
def test_a_run_goes_through_all_phases_and_names_its_weights(tmp_path, monkeypatch):
    tiny_corpora.install(tmp_path, monkeypatch)
    base = tiny_corpora.CONFIG
    config = dataclasses.replace(
        base,
        train=dataclasses.replace(base.train, steps=2, warmup_steps=1),
        align=dataclasses.replace(base.align, steps=2, batch=4),
    )
    workdir, said = tmp_path / "run", []
    pipeline.train(Run(config=config, workdir=workdir, report=said.append, stop_at=1))
    assert not (workdir / run_lib.SUMMARY).exists()
    assert not (workdir / run_lib.TOWER).exists()  # only a finished run is aligned
    pipeline.train(Run(config=config, workdir=workdir, report=said.append))
    summary = json.loads((workdir / run_lib.SUMMARY).read_text())
    params = start.load(workdir)
    assert set(summary.pop("source")) == {"commit", "dirty"}
    assert summary == {"step": 2, "fingerprint": start.fingerprint(params)}
    tower = tensors.read(workdir / run_lib.TOWER)["model"]["text_tower"]
    assert jax.tree.all(
        jax.tree.map(lambda a, b: (a == b).all(), tower, params["model"]["text_tower"])
    )
    assert (workdir / prepare.TOKENIZER).is_file()
    assert "resumed from step 1" in said
    said.clear()
    pipeline.train(Run(config=config, workdir=workdir, report=said.append))
    assert said == ["resumed from step 2"]  # nothing is left to do


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mix": {"emoji": 1.0}}, "batch.questions is .*, but no corpus of the mixture"),
        ({"mix": {"swords": 1.0}}, "mix.swords is no corpus"),
        ({"model": dataclasses.replace(tiny_corpora.CONFIG.model, vocab_size=500)}, "vocab_size"),
    ],
)
def test_a_config_that_cannot_be_prepared_is_refused_before_a_folder_is_claimed(
    change, words, tmp_path, monkeypatch
):
    tiny_corpora.install(tmp_path, monkeypatch)
    vocabulary_lib.make(tiny_corpora.CONFIG, lambda line: None)
    config = dataclasses.replace(tiny_corpora.CONFIG, **change)
    with pytest.raises(ValueError, match=words):
        pipeline.train(Run(config=config, workdir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()  # it may be mended, and run under the same name


def test_a_start_with_other_weights_is_refused_before_a_folder_is_claimed(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path))
    state = tiny_run.make(tmp_path / "runs" / "tiny")
    known = start.fingerprint(jax.device_get(state.params))

    def student(wanted: str) -> Run:
        quant = dataclasses.replace(tiny_run.STUDENT.quant, start=f"tiny@{wanted}")
        config = dataclasses.replace(tiny_run.STUDENT, quant=quant)
        return Run(config=config, workdir=tmp_path / "student")

    pipeline.check(student(known))
    with pytest.raises(ValueError, match=f"has the fingerprint {known}, quant.start asks for 0123"):
        pipeline.train(student("0123456789ab"))
    assert not (tmp_path / "student").exists()
