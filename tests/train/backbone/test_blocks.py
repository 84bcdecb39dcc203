"""The frozen backbone: eight bits leave its features alone, fewer give it features of its own."""

import dataclasses

import jax
import numpy as np
import pytest

from configs.quant import mixed
from mmllm.common import config as config_lib
from mmllm.data import pretrained
from mmllm.models import efficientnet_lite0
from mmllm.quant import grid, scale
from mmllm.train.backbone import blocks as backbone_lib
from mmllm.train.student import plan
from tests import tiny_backbone, tiny_run

MIXED = config_lib.resolve(mixed.get_config())
EIGHT = (r"backbone/.*/(expand|project)/kernel int8", r"backbone/.* float", r".*/kernel int4")


def ruled(*rules: str) -> config_lib.Config:
    return dataclasses.replace(MIXED, quant=dataclasses.replace(MIXED.quant, rules=rules))


@pytest.fixture
def backbone(monkeypatch):
    weights = tiny_backbone.random_weights(np.random.default_rng(0))
    monkeypatch.setattr(pretrained, "efficientnet_lite0_weights", lambda: weights)
    return backbone_lib.pretrained(MIXED)


def test_only_weights_below_eight_bits_move_the_cells():
    assert set(backbone_lib.coarse(MIXED)) == {
        f"backbone/block_{block}/{part}/kernel"
        for block in (12, 13, 14)
        for part in ("expand", "project")
    }
    assert backbone_lib.coarse(ruled(*EIGHT)) == {}
    assert backbone_lib.coarse(tiny_run.CONFIG) == {}
    assert len(plan.backbone(ruled(*EIGHT))) == 31


@pytest.mark.slow
def test_what_rounding_adds_to_the_key_of_features_follows_the_rules():
    two = (r"backbone/block_12/expand/kernel int2", *EIGHT)
    four = (r"backbone/block_12/expand/kernel int4", *EIGHT)
    keys = [backbone_lib.rounding(ruled(*rules)) for rules in (EIGHT, two, four)]
    assert keys[0] == {}
    assert keys[1] != keys[2] == backbone_lib.rounding(ruled(*four))
    reconstruction = dataclasses.replace(MIXED.quant.reconstruction, steps=5)
    quant = dataclasses.replace(ruled(*four).quant, reconstruction=reconstruction)
    trained = dataclasses.replace(MIXED, quant=quant)
    assert backbone_lib.rounding(trained) not in keys
    assert backbone_lib.blocks_file(trained).startswith("reconstructed-")
    assert backbone_lib.blocks_file(ruled(*four)) == backbone_lib.TUNED


@pytest.mark.slow
def test_coarse_weights_are_rounded_to_what_their_codes_stand_for(backbone, tmp_path):
    rounded = backbone_lib.rounded(MIXED, tmp_path, backbone)
    before, after = (s["block_13"]["expand"]["kernel"] for s in (backbone, rounded))
    scales = scale.mse_scale(before, grid.GRIDS["int4"])
    codes = np.asarray(after) / np.asarray(scales)
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-3)
    assert np.abs(codes).max() <= 8
    jax.tree.map(np.testing.assert_array_equal, rounded["block_11"], backbone["block_11"])
    assert not np.array_equal(before, after)


def test_the_backbone_is_split_behind_its_frozen_blocks():
    names = efficientnet_lite0.block_names("7x7x320")
    frozen, trainable = backbone_lib.split({"stem": 0, **dict.fromkeys(names, 1)})
    assert list(frozen) == ["stem", *efficientnet_lite0.block_names("14x14x112")]
    assert list(trainable) == [f"block_{i}" for i in range(11, 16)]
