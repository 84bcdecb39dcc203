"""A float bundle becomes the run it came from, and what does not fit is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from mmllm import bundle
from mmllm.data import pretrained, sources, synthetic, tokenizer, vocabulary
from mmllm.export import from_run
from mmllm.quant.coded import Coded
from mmllm.train import checkpoint, pipeline, regain
from mmllm.train.backbone import blocks as backbone_lib
from mmllm.train.phases import fit_prototypes, prepare
from mmllm.train.student import start
from tests import tiny_backbone, tiny_bundle, tiny_run

CONFIG = dataclasses.replace(
    tiny_run.CONFIG, regain=dataclasses.replace(tiny_run.CONFIG.regain, steps=2)
)
ALIGNED = dataclasses.replace(CONFIG, align=dataclasses.replace(CONFIG.align, steps=2))


def train_tokenizer(path, seed):
    """A vocabulary of made-up words, many enough for all its pieces."""
    rng, letters = np.random.default_rng(seed), list("abcdefghijklmnoprstuvwxyz")
    syllables = ["".join(rng.choice(letters, 3)) for _ in range(60)]
    words = ["".join(rng.choice(syllables, 3)) for _ in range(600)]
    tokenizer.train(words, path, CONFIG.model.vocab_size)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A bundle of the tiny model; the corpora and the cache are pretended."""
    tiny_run.pretend_built(monkeypatch)
    tiny_run.make(tmp_path / "gone")
    # As many pieces as the model has rows: a vocabulary of another size is refused.
    train_tokenizer(tmp_path / "gone" / prepare.TOKENIZER, seed=0)
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(sources, "is_built", lambda name: True)
    monkeypatch.setattr(sources, "data_hash", lambda name: f"hash of {name}")
    monkeypatch.setattr(prepare, "cache_folder", lambda config: folder)
    monkeypatch.setattr(prepare, "prepare", lambda config, report: folder)

    def prepared(run):
        run.tables, run.arrays = folder, synthetic.training_arrays(tiny_run.CONFIG)

    monkeypatch.setattr(pipeline, "prepare_only", prepared)
    return from_run.save(tmp_path / "gone", tmp_path / "bundle")


@pytest.mark.slow
def test_a_regained_run_can_be_exported_and_start_students(shipped, tmp_path):
    workdir = regain.regain(shipped, ALIGNED, tmp_path / "run", lambda line: None)
    again = from_run.save(workdir, tmp_path / "again")
    assert bundle.read_manifest(again)["files"] == bundle.read_manifest(shipped)["files"]
    start.check(tiny_run.STUDENT, workdir)
    teacher = start.load(workdir)
    assert teacher["prototypes"]["residual"].shape[0] == synthetic.CAPTIONS
    expected = bundle.load(shipped).params
    jax.tree.map(np.testing.assert_array_equal, dict(teacher["model"]), expected)


@pytest.mark.slow
def test_a_whole_run_is_left_as_it_is(shipped, tmp_path, monkeypatch):
    workdir = regain.regain(shipped, CONFIG, tmp_path / "run", lambda line: None)
    assert checkpoint.latest_step(workdir / checkpoint.FOLDER) == tiny_run.CONFIG.train.steps
    monkeypatch.setattr(fit_prototypes, "fit_prototypes", None)
    assert regain.regain(shipped, CONFIG, workdir) == workdir


def test_a_bundle_of_another_model_is_refused(shipped, tmp_path):
    model = dataclasses.replace(tiny_run.CONFIG.model, decoder_blocks=2)
    config = dataclasses.replace(tiny_run.CONFIG, model=model)
    with pytest.raises(ValueError, match="has another model than the config"):
        regain.regain(shipped, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_quantized_bundle_is_refused(tmp_path, monkeypatch):
    folder = tiny_bundle.make(tmp_path / "bundle")
    coded = {"embed/table": Coded(np.zeros((1, 2), np.int8), np.ones(1, np.float32), "int4")}
    loaded = dataclasses.replace(bundle.load(folder), coded=coded)
    monkeypatch.setattr(bundle, "load", lambda folder: loaded)
    with pytest.raises(ValueError, match="is a quantized bundle; a run is regained from a float"):
        regain.regain(folder, tiny_run.CONFIG, tmp_path / "run")


def test_another_vocabulary_is_refused(shipped, tmp_path):
    other = tmp_path / "other.model"
    train_tokenizer(other, seed=1)
    vocabulary.install(CONFIG.data.vocabulary, other)
    with pytest.raises(ValueError, match="holds another vocabulary than"):
        regain.regain(shipped, CONFIG, tmp_path / "run", lambda line: None)
    assert not checkpoint.latest_step(tmp_path / "run" / checkpoint.FOLDER)


def test_the_tuned_tail_is_taken_and_another_trunk_refused(tmp_path, monkeypatch):
    weights = tiny_backbone.random_weights(np.random.default_rng(0))
    monkeypatch.setattr(pretrained, "efficientnet_lite0_weights", lambda: weights)
    model = dataclasses.replace(
        tiny_run.CONFIG.model, backbone="efficientnet_lite0", image_side=224
    )
    tune = dataclasses.replace(tiny_run.CONFIG.tune, steps=1)
    config = dataclasses.replace(tiny_run.CONFIG, model=model, tune=tune)
    backbone = jax.tree.map(np.float16, backbone_lib.pretrained(config))
    loaded = bundle.Bundle(tmp_path, {}, model, {"backbone": backbone}, {}, (), tmp_path)
    trainable = regain.tuned_blocks(config, loaded)
    assert sorted(trainable) == sorted(backbone_lib.split(backbone)[1])
    moved = {**backbone, "block_3": jax.tree.map(lambda leaf: leaf + 1, backbone["block_3"])}
    with pytest.raises(ValueError, match="is not the one that the config tunes"):
        regain.tuned_blocks(config, dataclasses.replace(loaded, params={"backbone": moved}))
