"""Tuning the stem's tail: it learns the names, and an interruption changes nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.models import efficientnet_lite0
from mmllm.train import checkpoint, tune_stem
from tests import tiny_run

NAMES = 4
MODEL = dataclasses.replace(tiny_run.CONFIG.model, stem="efficientnet_lite0", image_side=224)
TUNE = dataclasses.replace(
    tiny_run.CONFIG.tune, steps=6, head_steps=30, batch=4, learning_rate=1e-3
)
CONFIG = dataclasses.replace(tiny_run.CONFIG, model=MODEL, tune=TUNE)
TEACHER = np.eye(NAMES, 384, dtype=np.float32)


def named(seed: int, *shape: int) -> tune_stem.Named:
    """Pictures of each name in two views; the last is never drawn."""
    noise = np.random.default_rng(seed).standard_normal((2, NAMES + 1, *shape))
    weight = np.array([1.0] * NAMES + [0.0])
    label = np.array([*range(NAMES), 0])
    return tune_stem.Named(list(noise.astype(np.float16)), label, weight)


@pytest.fixture(scope="module")
def params():
    tail = tune_stem.tail().init(jax.random.key(0), jnp.zeros((1, 14, 14, 112)))["params"]
    stem = {"stem": {}, **dict.fromkeys(efficientnet_lite0.block_names(tune_stem.TRUNK)), **tail}
    affine = {"scale": np.ones(320, np.float32), "bias": np.zeros(320, np.float32)}
    return jax.device_get(tune_stem.init_params(CONFIG, stem, affine, TEACHER))


def tune(params, workdir):
    said: list[str] = []
    near, far = [named(1, 7, 7, 320)], [named(2, 14, 14, 112)]
    tuned = tune_stem.tune(CONFIG, params, near, far, TEACHER, workdir, said.append)
    return tuned, said


def test_the_stem_is_split_at_the_trunk():
    names = efficientnet_lite0.block_names("7x7x320")
    trunk, tail = tune_stem.split_stem({"stem": 0, **dict.fromkeys(names, 1)})
    assert list(trunk) == ["stem", *efficientnet_lite0.block_names("14x14x112")]
    assert list(tail) == [f"block_{i}" for i in range(11, 16)]


def test_pictures_are_drawn_by_weight_over_all_sources():
    sources = [named(1, 1, 1, 2), named(2, 1, 1, 2)]
    sources[1] = dataclasses.replace(sources[1], weight=np.array([0.0, 0.0, 3.0, 0.0, 0.0]))
    draw = tune_stem.DrawNamed(sources, batch=4000)
    batch = draw.random_map(None, np.random.default_rng(0))
    assert batch["cells"].shape == (4000, 1, 1, 2)
    # Four pictures of weight one, and one of weight three with label 2.
    share = np.bincount(batch["label"], minlength=NAMES) / 4000
    np.testing.assert_allclose(share, [1 / 7, 1 / 7, 4 / 7, 1 / 7], atol=0.03)
    known = {tuple(cell.ravel()) for source in sources for view in source.cells for cell in view}
    assert {tuple(cell.ravel()) for cell in batch["cells"][:50]} <= known


@pytest.mark.slow
def test_the_head_learns_and_the_tail_stays(params):
    said: list[str] = []
    trained = tune_stem.train_head(CONFIG, params, [named(1, 7, 7, 320)], TEACHER, said.append)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), params, jax.device_get(trained))
    assert all(jax.tree.leaves(same.pop("tail")))
    assert not any(jax.tree.leaves(same))
    assert said[-1].startswith("head: step 30/30")


@pytest.mark.slow
def test_tuning_moves_every_part_and_an_interruption_changes_nothing(params, tmp_path, monkeypatch):
    monkeypatch.setattr(tune_stem, "CHECKPOINT_EVERY", 3)
    whole, said = tune(params, tmp_path / "whole")
    assert [line.split("  loss")[0] for line in said[-2:]] == ["stem: step 3/6", "stem: step 6/6"]
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
    assert said[0] == "stem: resumed from step 3"
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_an_unfit_rate_is_named(params, tmp_path):
    near = [dataclasses.replace(named(1, 7, 7, 320), cells=[np.full((5, 7, 7, 320), np.nan)])]
    with pytest.raises(FloatingPointError, match="head step 1: the loss is not finite"):
        tune_stem.tune(CONFIG, params, near, near, TEACHER, tmp_path, lambda line: None)
