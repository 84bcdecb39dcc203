"""Blocks trained on their grids: nearer to the float features than rounding, and resumable."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.data import pretrained
from mmllm.quant import tree
from mmllm.train import checkpoint
from mmllm.train.backbone import blocks as backbone_lib
from mmllm.train.phases import quantize_backbone
from mmllm.train.student import start
from tests import tiny_backbone, tiny_run

RULES = (
    r"backbone/block_15/(expand|project)/kernel int2",
    r"backbone/.* float",
    r"embed/table int8",
)


def ruled(steps: int, *rules: str):
    base = tiny_run.CONFIG
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, backbone="efficientnet_lite0", image_side=224),
        quant=dataclasses.replace(
            base.quant,
            start="tiny",
            rules=rules,
            reconstruction=dataclasses.replace(
                base.quant.reconstruction, steps=steps, batch=2, log_every=20, checkpoint_every=20
            ),
        ),
    )


@pytest.fixture(scope="module")
def backbone():
    weights = tiny_backbone.random_weights(np.random.default_rng(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrained, "efficientnet_lite0_weights", lambda: weights)
        return backbone_lib.pretrained(ruled(0, *RULES))


@pytest.fixture
def frozen_features():
    rng = np.random.default_rng(1)
    return [[rng.standard_normal((3, 14, 14, 112)).astype(np.float16)] * 2]


def distance(config, backbone, taught, frozen):
    """Root mean square of what rounding does to the features."""
    trainable, rules = backbone_lib.trainable_blocks(), backbone_lib.coarse(config)
    wanted = trainable.apply({"params": backbone_lib.split(backbone)[1]}, jnp.float32(frozen))
    held = jax.tree.map(jnp.asarray, taught)
    rounded = tree.fake_quantize({"backbone": held["trainable"]}, held["scales"], rules)
    got = trainable.apply({"params": rounded["backbone"]}, jnp.float32(frozen))
    return float(np.sqrt(np.mean(np.square(got - wanted))))


@pytest.mark.slow
def test_taught_cells_are_nearer_and_an_interruption_changes_nothing(
    backbone, frozen_features, tmp_path, monkeypatch
):
    monkeypatch.setattr(start, "data_seed", lambda config: 0)  # there is no run it starts from
    config = ruled(40, *RULES)
    said: list[str] = []
    taught = quantize_backbone.reconstruct(
        config, backbone, frozen_features, tmp_path / "whole", said.append
    )
    assert said[-1].startswith("reconstruction: step 40/40")
    rules = backbone_lib.coarse(config)
    plain = {
        "trainable": backbone_lib.split(backbone)[1],
        "scales": tree.init_scales({"backbone": backbone}, rules),
    }
    before, after = (
        distance(config, backbone, each, frozen_features[0][0]) for each in (plain, taught)
    )
    assert after < 0.8 * before

    save = checkpoint.Checkpoints.save

    def save_and_die(self, state, iterator):
        save(self, state, iterator)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            quantize_backbone.reconstruct(
                config, backbone, frozen_features, tmp_path / "cut", lambda line: None
            )
    again = quantize_backbone.reconstruct(
        config, backbone, frozen_features, tmp_path / "cut", lambda line: None
    )
    jax.tree.map(np.testing.assert_array_equal, taught, again)


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        (RULES[1:], "no weight of the backbone"),
        ((r"backbone/block_3/expand/kernel int4", *RULES), "backbone/block_3/expand/kernel"),
    ],
)
def test_weights_that_it_cannot_reconstruct_are_refused(
    backbone, frozen_features, tmp_path, rules, named
):
    with pytest.raises(ValueError, match=f"but quant.rules put {named} there"):
        quantize_backbone.reconstruct(ruled(5, *rules), backbone, frozen_features, tmp_path)
