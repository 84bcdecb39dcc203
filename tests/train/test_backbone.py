"""The frozen backbone: eight bits leave its features alone, fewer give it features of its own."""

import dataclasses

import jax
import numpy as np
import pytest

from configs.quant import mixed
from mmllm.common import config as config_lib
from mmllm.data import pretrained
from mmllm.quant import grid, scale
from mmllm.train import backbone as backbone_lib
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
    assert len(backbone_lib.planned(ruled(*EIGHT))) == 31


@pytest.mark.slow
def test_names_of_cells_follow_the_rounding():
    two = (r"backbone/block_12/expand/kernel int2", *EIGHT)
    four = (r"backbone/block_12/expand/kernel int4", *EIGHT)
    digests = [backbone_lib.digest(ruled(*rules)) for rules in (EIGHT, two, four)]
    assert digests[0] == ""
    assert len(set(digests)) == 3
    assert digests[2] == backbone_lib.digest(ruled(*four))
    quant = dataclasses.replace(ruled(*four).quant, backbone_steps=5)
    taught = dataclasses.replace(MIXED, quant=quant)
    assert backbone_lib.digest(taught) not in digests
    assert backbone_lib.trainable_file(taught) == f"tuned{backbone_lib.digest(taught)}.safetensors"
    assert backbone_lib.trainable_file(ruled(*four)) == backbone_lib.TUNED


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
