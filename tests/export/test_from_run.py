"""A run becomes a bundle with the same parameters, and what is missing is named."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from mmllm import bundle
from mmllm.common import config as config_lib
from mmllm.common import paths, tensors
from mmllm.data import pretrained, registry
from mmllm.data.charset import CHARSET
from mmllm.data.tokenizer import LANGUAGES
from mmllm.export import from_run
from mmllm.models import efficientnet_lite0
from mmllm.train import run as run_lib
from mmllm.train.backbone import blocks as backbone_lib
from mmllm.train.phases import prepare
from tests import tiny_run


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    tiny_run.pretend_built(monkeypatch)
    return tmp_path / "run"


def test_a_bundle_holds_the_parameters_of_the_newest_checkpoint(workdir, tmp_path):
    state = tiny_run.make(workdir)
    folder = from_run.save(workdir, tmp_path / "bundle", {"caption/exact match": 0.5})
    loaded = bundle.load(folder)
    expected = jax.tree.map(lambda leaf: np.float16(leaf), jax.device_get(state.params["model"]))
    assert jax.tree.structure(loaded.params) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(loaded.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)
    assert loaded.config == tiny_run.CONFIG.model
    assert loaded.tokenizer_path.read_bytes() == (workdir / prepare.TOKENIZER).read_bytes()


def test_the_manifest_names_data_pretrained_parts_and_scores(workdir, tmp_path):
    tiny_run.make(workdir)
    manifest = bundle.read_manifest(from_run.save(workdir, tmp_path / "b", {"lines/CER": 0.1}))
    assert manifest["name"] == "b"
    assert manifest["charset"] == CHARSET
    assert manifest["languages"] == list(LANGUAGES)
    assert manifest["scores"] == {"lines/CER": 0.1}
    assert [row["name"] for row in manifest["data"]] == list(registry.CORPORA)
    assert manifest["data"][0] == {
        "name": "emoji",
        "hash": "hash of emoji",
        "licence": "CC0-1.0 AND MIT",
    }
    # The patch backbone is not pretrained: the teacher alone has left traces.
    assert manifest["pretrained"] == [pretrained.MINILM.manifest_entry()]


def test_the_frozen_backbone_joins_the_trained_parameters(workdir, tmp_path, monkeypatch):
    model = dataclasses.replace(
        tiny_run.CONFIG.model, backbone="efficientnet_lite0", image_side=224
    )
    tiny_run.make(workdir, dataclasses.replace(tiny_run.CONFIG, model=model))
    backbone = {"first": {"kernel": np.full((2, 2), 0.5, np.float32)}}
    monkeypatch.setattr(pretrained, "efficientnet_lite0_weights", dict)
    monkeypatch.setattr(efficientnet_lite0, "convert_weights", lambda weights, level: backbone)
    loaded = bundle.load(from_run.save(workdir, tmp_path / "bundle"))
    np.testing.assert_array_equal(loaded.params["backbone"]["first"]["kernel"], 0.5)
    assert {"backbone", "encoder", "text_tower"} <= set(loaded.params)
    assert loaded.manifest["pretrained"][0] == pretrained.EFFICIENTNET_LITE0.manifest_entry()


def test_tuned_blocks_take_the_place_of_the_pretrained_ones(workdir, tmp_path, monkeypatch):
    model = dataclasses.replace(
        tiny_run.CONFIG.model, backbone="efficientnet_lite0", image_side=224
    )
    tune = dataclasses.replace(tiny_run.CONFIG.tune, steps=1)
    tiny_run.make(workdir, dataclasses.replace(tiny_run.CONFIG, model=model, tune=tune))
    blocks = {name: {"kernel": np.zeros((2, 2), np.float32)} for name in ("block_0", "block_15")}
    monkeypatch.setattr(pretrained, "efficientnet_lite0_weights", dict)
    monkeypatch.setattr(efficientnet_lite0, "convert_weights", lambda weights, level: dict(blocks))
    with pytest.raises(FileNotFoundError, match=backbone_lib.TUNED):
        from_run.save(workdir, tmp_path / "bundle")
    trainable = {"block_15": {"kernel": np.full((2, 2), 0.25, np.float16)}}
    tensors.write(workdir / backbone_lib.TUNED, {"trainable": trainable})
    loaded = bundle.load(from_run.save(workdir, tmp_path / "bundle"))
    np.testing.assert_array_equal(loaded.params["backbone"]["block_0"]["kernel"], 0.0)
    np.testing.assert_array_equal(loaded.params["backbone"]["block_15"]["kernel"], 0.25)
    assert loaded.manifest["pretrained"][0]["tuned"] == "the blocks behind level 14x14x112"


def test_an_aligned_tower_takes_the_place_of_the_runs(workdir, tmp_path):
    align = dataclasses.replace(tiny_run.CONFIG.align, steps=1)
    state = tiny_run.make(workdir, dataclasses.replace(tiny_run.CONFIG, align=align))
    with pytest.raises(FileNotFoundError, match="no aligned text tower at .*finish the training"):
        from_run.save(workdir, tmp_path / "bundle")
    tower = jax.tree.map(np.zeros_like, jax.device_get(state.params["model"]["text_tower"]))
    tensors.write(workdir / run_lib.TOWER, {"model": {"text_tower": tower}})
    loaded = bundle.load(from_run.save(workdir, tmp_path / "bundle"))
    assert not any(leaf.any() for leaf in jax.tree.leaves(loaded.params["text_tower"]))
    assert any(leaf.any() for leaf in jax.tree.leaves(loaded.params["decoder"]))


def test_an_unfinished_run_is_refused_unless_it_is_asked_for(workdir, tmp_path):
    steps = tiny_run.CONFIG.train.steps
    tiny_run.make(workdir, step=steps - 1)
    message = rf"at step {steps - 1} of {steps} \(train.steps\); .*mmllm.train .*--unfinished"
    with pytest.raises(ValueError, match=message):
        from_run.save(workdir, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    folder = from_run.save(workdir, tmp_path / "bundle", unfinished=True)
    assert bundle.read_manifest(folder)["provenance"]["step"] == steps - 1


def test_an_unfinished_run_brings_the_text_tower_it_has(workdir, tmp_path):
    align = dataclasses.replace(tiny_run.CONFIG.align, steps=1)
    state = tiny_run.make(workdir, dataclasses.replace(tiny_run.CONFIG, align=align), step=3)
    loaded = bundle.load(from_run.save(workdir, tmp_path / "bundle", unfinished=True))
    expected = np.float16(state.params["model"]["text_tower"]["project"]["kernel"])
    np.testing.assert_array_equal(loaded.params["text_tower"]["project"]["kernel"], expected)


def test_the_manifest_says_what_the_parameters_come_from(workdir, tmp_path):
    tiny_run.make(workdir)
    found = bundle.read_manifest(from_run.save(workdir, tmp_path / "bundle"))["provenance"]
    assert found["step"] == tiny_run.CONFIG.train.steps
    assert found["seed"] == tiny_run.CONFIG.seed
    assert found["training"] == json.loads((workdir / "config.json").read_text())
    assert found["training_sha256"] == config_lib.stored_sha256(found["training"])
    assert found["parent"] is None
    assert {"commit", "dirty"} <= set(found)


def test_step_and_source_are_those_of_the_training_where_the_run_wrote_them_down(workdir, tmp_path):
    tiny_run.make(workdir)
    source = {"commit": "0" * 40, "dirty": True}
    run_lib.summarize(workdir, {"best_step": 2, "source": source})
    found = bundle.read_manifest(from_run.save(workdir, tmp_path / "bundle"))["provenance"]
    assert {name: found[name] for name in ("step", "commit", "dirty")} == {"step": 2, **source}


def test_the_parent_of_a_student_is_the_float_run_it_started_from(tmp_path, monkeypatch):
    monkeypatch.setenv(paths.ENVIRONMENT_VARIABLE, str(tmp_path))
    gone = {"run": "tiny", "weights_sha256": None}
    assert from_run._parent(tiny_run.STUDENT) == gone
    state = tiny_run.make(tmp_path / "runs" / "tiny")
    digest = tensors.sha256(jax.device_get(state.params["model"]))
    assert from_run._parent(tiny_run.STUDENT) == {"run": "tiny", "weights_sha256": digest}


def test_what_a_run_lacks_is_named(workdir, tmp_path):
    target = tmp_path / "bundle"
    with pytest.raises(FileNotFoundError, match="no training run at .*config.json is missing"):
        from_run.save(workdir, target)
    tiny_run.make(workdir)
    (workdir / prepare.TOKENIZER).unlink()
    with pytest.raises(FileNotFoundError, match="no vocabulary at .*trained on corpora"):
        from_run.save(workdir, target)
    (workdir / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        from_run.save(workdir, target)
    assert not target.exists()


def test_a_run_without_a_checkpoint_is_named(workdir, tmp_path):
    workdir.mkdir()
    values = dataclasses.asdict(tiny_run.CONFIG)
    (workdir / "config.json").write_text(json.dumps(values))
    with pytest.raises(FileNotFoundError, match="no checkpoints in .*train first"):
        from_run.save(workdir, tmp_path / "bundle")
