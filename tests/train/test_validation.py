"""The losses on pictures that no step has seen: the same batches each time, and nothing drawn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.data import synthetic
from mmllm.train import validation
from tests import tiny_run

CONFIG = dataclasses.replace(
    tiny_run.CONFIG,
    train=dataclasses.replace(tiny_run.CONFIG.train, validate_every=2, validation_batches=2),
)
UNSEEN = synthetic.training_arrays(CONFIG, seed=1)


@pytest.fixture(scope="module")
def state():
    return tiny_run.fresh_state(CONFIG)


@pytest.fixture(scope="module")
def watch():
    return validation.of(CONFIG, UNSEEN, jax.device_put)


def test_every_loss_is_measured_and_depends_on_the_parameters_alone(state, watch):
    assert watch.every == 2
    found = watch.losses(state)
    names = ("caption", "name", "spoken", "vqa", "retrieval", "text_caption", "text_teacher")
    assert set(found) == {f"val/{name}" for name in (*names, "lines", "total")}
    assert all(np.isfinite(value) for value in found.values())
    assert watch.losses(state.replace(step=jnp.int32(7))) == found
    total = sum(
        getattr(CONFIG.loss, name.removeprefix("val/")) * value
        for name, value in found.items()
        if name != "val/total"
    )
    assert found["val/total"] == pytest.approx(total, rel=1e-5)


def test_free_residuals_of_training_captions_take_no_part(state, watch):
    prototypes = {**state.params["prototypes"]}
    prototypes["residual"] = prototypes["residual"] + 1.0
    moved = state.replace(params={**state.params, "prototypes": prototypes})
    assert watch.losses(moved) == watch.losses(state)


def test_a_config_that_asks_for_none_has_none():
    assert validation.of(tiny_run.CONFIG, UNSEEN, jax.device_put) is None
