"""Parameters by tensor class, and the budgets of the shipped and the headline model."""

import jax
import numpy as np
import pytest

from configs import mobile, nano
from mmllm.bundle import sizes
from mmllm.common import config as config_lib
from mmllm.models import init_params

SHIPPED_BYTES = 16e6  # float16 weights of nano
BUDGET_BYTES = 35e6  # the packed mobile model
TWO_BITS = {"encoder", "decoder", "text tower", "image tokens", "line tokens", "retrieval heads"}


def shapes(module):
    config = config_lib.resolve(module.get_config()).model
    return jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))


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


def test_mobile_packs_below_its_budget_with_an_eight_bit_vocabulary():
    counts = sizes.parameters_by_class(shapes(mobile))
    packed = sum(count / 4 if label in TWO_BITS else count for label, count in counts.items())
    assert packed < BUDGET_BYTES
