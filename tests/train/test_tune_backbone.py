"""Tuning the backbone's trainable: it learns the names, and an interruption changes nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.models import efficientnet_lite0
from mmllm.train import checkpoint, tune_backbone
from tests import tiny_run

NAMES = 4
MODEL = dataclasses.replace(tiny_run.CONFIG.model, backbone="efficientnet_lite0", image_side=224)
TUNE = dataclasses.replace(
    tiny_run.CONFIG.tune, steps=6, head_steps=30, batch=4, learning_rate=1e-3
)
CONFIG = dataclasses.replace(tiny_run.CONFIG, model=MODEL, tune=TUNE)
TEACHER = np.eye(NAMES, 384, dtype=np.float32)


def named(seed: int, *shape: int) -> tune_backbone.Named:
    """Pictures of each name in two views; the last is never drawn."""
    noise = np.random.default_rng(seed).standard_normal((2, NAMES + 1, *shape))
    weight = np.array([1.0] * NAMES + [0.0])
    label = np.array([*range(NAMES), 0])
    return tune_backbone.Named(list(noise.astype(np.float16)), label, weight)


@pytest.fixture(scope="module")
def params():
    trainable = tune_backbone.trainable().init(jax.random.key(0), jnp.zeros((1, 14, 14, 112)))[
        "params"
    ]
    backbone = {
        "stem": {},
        **dict.fromkeys(efficientnet_lite0.block_names(tune_backbone.FROZEN_LEVEL)),
        **trainable,
    }
    affine = {"scale": np.ones(320, np.float32), "bias": np.zeros(320, np.float32)}
    return jax.device_get(tune_backbone.init_params(CONFIG, backbone, affine, TEACHER))


def tune(params, workdir):
    said: list[str] = []
    near, far = [named(1, 7, 7, 320)], [named(2, 14, 14, 112)]
    tuned = tune_backbone.tune(CONFIG, params, near, far, TEACHER, workdir, said.append)
    return tuned, said


def test_the_stem_is_split_at_the_trunk():
    names = efficientnet_lite0.block_names("7x7x320")
    frozen, trainable = tune_backbone.split_backbone({"stem": 0, **dict.fromkeys(names, 1)})
    assert list(frozen) == ["stem", *efficientnet_lite0.block_names("14x14x112")]
    assert list(trainable) == [f"block_{i}" for i in range(11, 16)]


def test_pictures_are_drawn_by_weight_over_all_sources():
    sources = [named(1, 1, 1, 2), named(2, 1, 1, 2)]
    sources[1] = dataclasses.replace(sources[1], weight=np.array([0.0, 0.0, 3.0, 0.0, 0.0]))
    draw = tune_backbone.DrawNamed(sources, batch=4000)
    batch = draw.random_map(None, np.random.default_rng(0))
    assert batch["features"].shape == (4000, 1, 1, 2)
    # Four pictures of weight one, and one of weight three with label 2.
    share = np.bincount(batch["label"], minlength=NAMES) / 4000
    np.testing.assert_allclose(share, [1 / 7, 1 / 7, 4 / 7, 1 / 7], atol=0.03)
    known = {tuple(cell.ravel()) for source in sources for view in source.features for cell in view}
    assert {tuple(cell.ravel()) for cell in batch["features"][:50]} <= known


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
    monkeypatch.setattr(tune_backbone, "CHECKPOINT_EVERY", 3)
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
    with pytest.raises(FloatingPointError, match="head step 1: the loss is not finite"):
        tune_backbone.tune(CONFIG, params, near, near, TEACHER, tmp_path, lambda line: None)
