"""The last stage: the tower comes to lie where the bank is, and nothing else moves."""

import dataclasses

import jax
import numpy as np
import pytest

from mmllm.common import tensors
from mmllm.data import synthetic
from mmllm.train import align_text
from mmllm.train import state as state_lib
from tests import tiny_run

ALIGN = dataclasses.replace(tiny_run.CONFIG.align, steps=60, batch=16, learning_rate=1e-2)
CONFIG = dataclasses.replace(tiny_run.CONFIG, align=ALIGN)
ARRAYS = synthetic.training_arrays(CONFIG)


@pytest.fixture(scope="module")
def params():
    return jax.device_get(state_lib.init_state(CONFIG, synthetic.BANK).params)


def test_aligning_brings_captions_to_the_bank_and_is_done_once(params, tmp_path):
    said: list[str] = []
    path = tmp_path / align_text.TOWER
    tower = align_text.align(CONFIG, params, ARRAYS, path, said.append)
    distance = float(said[-1].split("captions ")[1].split()[0])
    assert said[-1].startswith("text: step 60/60")
    assert distance < 0.3  # random directions are 1 apart
    kept = tensors.read(path)
    assert jax.tree.structure(kept) == jax.tree.structure(params["model"]["text_tower"])
    jax.tree.map(np.testing.assert_array_equal, kept, dict(tower))
    said.clear()
    align_text.align(CONFIG, params, ARRAYS, path, said.append)
    assert not said
