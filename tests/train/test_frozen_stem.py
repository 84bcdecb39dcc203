"""The frozen stem: eight bits leave its cells alone, fewer give it cells of its own."""

import dataclasses

import jax
import numpy as np
import pytest

from configs.quant import mixed
from mmllm.common import config as config_lib
from mmllm.data import pretrained
from mmllm.quant import grid, scale
from mmllm.train import frozen_stem
from tests import tiny_run, tiny_stem

MIXED = config_lib.resolve(mixed.get_config())
EIGHT = (r"stem/.*/(expand|project)/kernel int8", r"stem/.* float", r".*/kernel int4")


def ruled(*rules: str) -> config_lib.Config:
    return dataclasses.replace(MIXED, quant=dataclasses.replace(MIXED.quant, rules=rules))


@pytest.fixture
def stem(monkeypatch):
    weights = tiny_stem.random_weights(np.random.default_rng(0))
    monkeypatch.setattr(pretrained, "efficientnet_lite0_weights", lambda: weights)
    return frozen_stem.pretrained(MIXED)


def test_only_weights_below_eight_bits_move_the_cells():
    assert set(frozen_stem.coarse(MIXED)) == {
        f"stem/block_{block}/{part}/kernel"
        for block in (12, 13, 14)
        for part in ("expand", "project")
    }
    assert frozen_stem.coarse(ruled(*EIGHT)) == {}
    assert frozen_stem.coarse(tiny_run.CONFIG) == {}
    assert len(frozen_stem.planned(ruled(*EIGHT))) == 31


@pytest.mark.slow
def test_names_of_cells_follow_the_rounding():
    two = (r"stem/block_12/expand/kernel int2", *EIGHT)
    four = (r"stem/block_12/expand/kernel int4", *EIGHT)
    digests = [frozen_stem.digest(ruled(*rules)) for rules in (EIGHT, two, four)]
    assert digests[0] == ""
    assert len(set(digests)) == 3
    assert digests[2] == frozen_stem.digest(ruled(*four))
    quant = dataclasses.replace(ruled(*four).quant, stem_steps=5)
    taught = dataclasses.replace(MIXED, quant=quant)
    assert frozen_stem.digest(taught) not in digests
    assert frozen_stem.tail_file(taught) == f"tuned{frozen_stem.digest(taught)}.safetensors"
    assert frozen_stem.tail_file(ruled(*four)) == frozen_stem.TUNED


@pytest.mark.slow
def test_coarse_weights_are_rounded_to_what_their_codes_stand_for(stem, tmp_path):
    rounded = frozen_stem.rounded(MIXED, tmp_path, stem)
    before, after = (s["block_13"]["expand"]["kernel"] for s in (stem, rounded))
    scales = scale.mse_scale(before, grid.GRIDS["int4"])
    codes = np.asarray(after) / np.asarray(scales)
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-3)
    assert np.abs(codes).max() <= 8
    jax.tree.map(np.testing.assert_array_equal, rounded["block_11"], stem["block_11"])
    assert not np.array_equal(before, after)
