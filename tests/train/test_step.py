"""One step of tiny: its numbers are kept, and the same seed gives the same bits."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.data import pipeline, synthetic
from mmllm.train import state as state_lib
from mmllm.train import step as step_lib
from tests import tiny_run

GOLDEN = Path(__file__).parents[1] / "golden" / "tiny_step.json"
# Other processors and JAX versions add in another order; a changed formula moves far more.
TOLERANCE = 1e-3
CONFIG = tiny_run.CONFIG


@pytest.fixture(scope="module")
def run():
    """Runs one step from the fresh state; `step` sets its number."""
    arrays = synthetic.training_arrays(CONFIG)
    batch = next(pipeline.batches(CONFIG, arrays))
    teacher = np.asarray(arrays.texts.bank_teacher, np.float32)
    compiled = jax.jit(step_lib.make_step(CONFIG))

    def once(step=0):
        state = state_lib.init_state(CONFIG, synthetic.BANK).replace(step=jnp.int32(step))
        return jax.device_get(compiled(state, batch, teacher))

    return once


@pytest.fixture(scope="module")
def first(run):
    return run()


def test_golden_metrics_of_the_first_step(first):
    metrics = {name: float(value) for name, value in sorted(first[1].items())}
    if os.environ.get("MMLLM_UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(json.dumps(metrics, indent=0) + "\n")
    assert metrics == pytest.approx(json.loads(GOLDEN.read_text()), rel=TOLERANCE), (
        "the first step of configs/tiny.py gives other numbers: initialisation, batch order, model "
        "or a loss changed. If that was meant, run `make golden`, commit the difference, and "
        "expect every earlier result to need a new run"
    )


def test_the_same_seed_twice_is_equal_bit_for_bit(first, run):
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(run()), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_total_is_the_weighted_sum_of_the_parts(first):
    metrics = first[1]
    weights = CONFIG.loss
    names = ("caption", "name", "spoken", "vqa", "retrieval", "lines")
    names += ("text_caption", "text_teacher")
    expected = sum(getattr(weights, name) * metrics[f"loss/{name}"] for name in names)
    assert metrics["loss/total"] == pytest.approx(expected, rel=1e-5)
    assert set(metrics) == {f"loss/{name}" for name in (*names, "total")} | {"gradient_norm"}


def test_the_step_number_rises_and_draws_another_dropout(first, run):
    state, metrics = run(step=7)
    assert (int(first[0].step), int(state.step)) == (1, 8)
    assert metrics["loss/total"] != first[1]["loss/total"]


def test_every_parameter_gets_a_gradient(first):
    # Adam's first moment after one step is a tenth of the gradient.
    moments = first[0].opt_state[1][0].mu
    dead = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(moments)
        if not np.any(leaf)
    ]
    assert dead == []
