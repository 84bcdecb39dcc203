"""Tuning the backbone's trainable: it learns the names, and an interruption changes nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.common import tensors
from mmllm.models import efficientnet_lite0
from mmllm.train import checkpoint
from mmllm.train.backbone import blocks as backbone_lib
from mmllm.train.backbone import feature_cache
from mmllm.train.draws import Named
from mmllm.train.phases import tune_backbone
from mmllm.train.run import Run
from mmllm.train.student import start
from tests import tiny_run

NAMES = 4
MODEL = dataclasses.replace(tiny_run.CONFIG.model, backbone="efficientnet_lite0", image_side=224)
TUNE = dataclasses.replace(
    tiny_run.CONFIG.tune,
    steps=6,
    head_steps=30,
    batch=4,
    learning_rate=1e-3,
    log_every=3,
    checkpoint_every=3,
)
CONFIG = dataclasses.replace(tiny_run.CONFIG, model=MODEL, tune=TUNE)
TEACHER = np.eye(NAMES, 384, dtype=np.float32)


def named(seed: int, *shape: int) -> Named:
    """Pictures of each name in two views; the last is never drawn."""
    noise = np.random.default_rng(seed).standard_normal((2, NAMES + 1, *shape))
    weight = np.array([1.0] * NAMES + [0.0])
    label = np.array([*range(NAMES), 0])
    return Named(list(noise.astype(np.float16)), label, weight)


@pytest.fixture(scope="module")
def params():
    trainable = backbone_lib.trainable_blocks().init(
        jax.random.key(0), jnp.zeros((1, 14, 14, 112))
    )["params"]
    backbone = {
        "stem": {},
        **dict.fromkeys(efficientnet_lite0.block_names(backbone_lib.FROZEN_LEVEL)),
        **trainable,
    }
    affine = {"scale": np.ones(320, np.float32), "bias": np.zeros(320, np.float32)}
    return jax.device_get(tune_backbone.init_params(CONFIG, backbone, affine, TEACHER))


def tune(params, workdir):
    said: list[str] = []
    near, far = [named(1, 7, 7, 320)], [named(2, 14, 14, 112)]
    tuned = tune_backbone.tune(CONFIG, params, near, far, TEACHER, workdir, said.append)
    return tuned, said


@pytest.mark.slow
def test_the_head_learns_and_the_tail_stays(params):
    said: list[str] = []
    trained = tune_backbone.train_head(CONFIG, params, [named(1, 7, 7, 320)], TEACHER, said.append)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), params, jax.device_get(trained))
    assert all(jax.tree.leaves(same.pop("trainable")))
    assert not any(jax.tree.leaves(same))
    assert said[-1].startswith("head: step 30/30")


@pytest.mark.slow
def test_tuning_moves_every_part_and_an_interruption_changes_nothing(params, tmp_path, monkeypatch):
    whole, said = tune(params, tmp_path / "whole")
    assert [line.split("  loss")[0] for line in said[-2:]] == [
        "backbone: step 3/6",
        "backbone: step 6/6",
    ]
    losses = [float(line.split("loss ")[1].split()[0]) for line in said if "head" in line]
    assert losses[-1] < losses[0]
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), params, whole)
    assert all(jax.tree.leaves(moved))

    save = checkpoint.Checkpoints.save

    def save_and_die(self, state, iterator):
        save(self, state, iterator)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            tune(params, tmp_path / "cut")
    again, said = tune(params, tmp_path / "cut")
    assert said[0] == "backbone: resumed from step 3"
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_an_unfit_rate_is_named(params, tmp_path):
    near = [dataclasses.replace(named(1, 7, 7, 320), features=[np.full((5, 7, 7, 320), np.nan)])]
    with pytest.raises(
        FloatingPointError,
        match="head step 1: .*loss/total.* is not finite; Lower tune",
    ):
        tune_backbone.tune(CONFIG, params, near, near, TEACHER, tmp_path, lambda line: None)


def test_given_blocks_are_kept_and_others_refused(tmp_path):
    blocks = {"block_15": {"kernel": np.full((2, 2), 0.3, np.float32)}}
    path = tmp_path / backbone_lib.TUNED
    for _ in range(2):
        tune_backbone.keep(path, blocks)
    kept = tensors.read(path, floats=False)["trainable"]["block_15"]["kernel"]
    assert kept.dtype == np.float16
    for other in ({"block_15": {"kernel": np.zeros((2, 2), np.float32)}}, {"block_14": {}}):
        with pytest.raises(ValueError, match="is the backbone of another run; remove"):
            tune_backbone.keep(path, other)


def test_a_student_s_backbone_is_that_of_its_start(tmp_path, monkeypatch):
    begun, folder = tmp_path / "start", tmp_path / "backbone"
    begun.mkdir()
    blocks = {"block_15": {"kernel": np.full((2, 2), 0.25, np.float16)}}
    tensors.write(begun / backbone_lib.TUNED, {"trainable": blocks})
    monkeypatch.setattr(start, "folder", lambda config: begun)
    monkeypatch.setattr(feature_cache, "backbone_folder", lambda config, tables: folder)
    quant = dataclasses.replace(CONFIG.quant, start="tiny", rules=("embed/table int8",))
    config = dataclasses.replace(CONFIG, quant=quant)
    student = Run(config=config, workdir=tmp_path / "run", tables=tmp_path)
    tune_backbone.run(student)
    kept = tensors.read(folder / backbone_lib.TUNED)["trainable"]
    np.testing.assert_array_equal(kept["block_15"]["kernel"], 0.25)
    other = {"block_15": {"kernel": np.zeros((2, 2), np.float16)}}
    tensors.write(folder / backbone_lib.TUNED, {"trainable": other})
    with pytest.raises(ValueError, match="is the backbone of another run; remove"):
        tune_backbone.run(student)
