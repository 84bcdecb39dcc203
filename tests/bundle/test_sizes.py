"""Parameters by tensor class, and the budgets of the shipped and the headline model."""

from typing import Any

import jax
import numpy as np
import pytest

from configs import mobile, nano
from configs.quant import mobile_int2
from mmllm import bundle
from mmllm.bundle import sizes
from mmllm.common import config as config_lib
from mmllm.common import tensors
from mmllm.models import init_params
from mmllm.quant import coded, grid
from mmllm.quant.rules import Rule
from mmllm.runtime import model
from mmllm.train.student import plan

SHIPPED_BYTES = 16e6  # float16 weights of nano
BUDGET_BYTES = 35e6  # the packed mobile model


def shapes(module):
    """A model's tree with one zero behind every array: no memory for its parameters."""
    config = config_lib.resolve(module.get_config()).model
    leaves = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))
    return jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), leaves)


def test_parameters_are_counted_by_class():
    params = {
        "encoder": {"block_0": {"kernel": np.zeros((3, 4))}},
        "decoder": {"norm": {"scale": np.zeros(5)}, "block_0": {"kernel": np.zeros((2, 2))}},
    }
    assert sizes.parameters_by_class(params) == {"encoder": 12, "decoder": 9}


def test_a_name_without_a_class_is_refused():
    with pytest.raises(ValueError, match="ghost/kernel has no tensor class"):
        sizes.parameters_by_class({"ghost": {"kernel": np.zeros(1)}})


def test_nano_fits_its_float16_file():
    assert 2 * sum(sizes.parameters_by_class(shapes(nano)).values()) < SHIPPED_BYTES


def packed_bytes(params: Any, planned: dict[str, Rule]) -> int:
    """Of the arrays in a weights file: codes and float32 scales, the rest in float16."""
    total = 0
    for path, value in tensors.flatten(params):
        if path in planned:
            channels = value.shape[0] if coded.is_table(path) else value.shape[1]
            total += value.size * grid.GRIDS[planned[path].weights].bits // 8 + 4 * channels
        else:
            total += 2 * value.size
    return total


def test_mobile_packs_below_its_budget_by_its_own_rules():
    config = config_lib.resolve(mobile_int2.get_config())
    packed = packed_bytes(shapes(mobile), plan.whole(config))
    assert packed < BUDGET_BYTES
    assert round(packed / 1e6, 1) == 29.6  # as configs/mobile.py says


def test_nano_as_it_ships_has_the_bytes_that_its_rules_give():
    loaded = bundle.load(model.locate("nano"))
    planned = {path: Rule(path, each.grid) for path, each in loaded.coded.items()}
    arrays = sum(row["bytes"] for row in loaded.manifest["tensor_classes"].values())
    assert packed_bytes(shapes(nano), planned) == arrays
