"""Oscillation: the frequency is counted as by hand, and what is frozen stays on its level."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.quant import oscillation, tree
from mmllm.quant.rules import Rule

PLAN = {"up/kernel": Rule("up/kernel", "int2"), "embed/table": Rule("embed/table", "int4")}
SCALES = {"up": {"kernel": jnp.ones(1)}, "embed": {"table": jnp.ones(3)}}
TABLE = jnp.array([[1.0], [2.0], [3.0]])
ON, OFF = jnp.array(True), jnp.array(False)


def params(*weights: float, table: jax.Array = TABLE):
    return {"up": {"kernel": jnp.array(weights)[:, None]}, "embed": {"table": table}}


def run(rows, active, state=None):
    """Freezes weights of one step after the other, as an optimizer would leave them."""
    state = state or oscillation.start(params(*rows[0]), SCALES, PLAN)
    held = params(*rows[0])
    for row in rows[1:]:
        state, held = oscillation.freeze(state, params(*row), SCALES, PLAN, active)
    return state, held


def test_only_a_change_that_goes_back_counts():
    # Back and forth; up and up again; once; none.
    rows = [(-0.6, -2.0, -0.6, 0.0), (-0.4, -1.0, -0.4, 0.1), (-0.6, 0.0, -0.4, 0.4)]
    state, _ = run(rows, OFF)
    frequency = np.asarray(state["up/kernel"].frequency)[:, 0]
    np.testing.assert_allclose(frequency, [oscillation.MOMENTUM, 0, 0, 0])
    assert state["up/kernel"].direction[:, 0].tolist() == [-1, 1, 1, 0]
    assert not state["up/kernel"].frozen.any()
    assert state["embed/table"].code.shape == (1, 3)  # output channels last


def test_a_weight_that_oscillates_is_frozen_where_it_mostly_was():
    # Two steps of three at -1, one at 0: the mean of the codes is nearer to -1.
    rows = [(-0.6, 0.3), (-0.4, 0.3)] + [(-0.6, 0.3), (-0.6, 0.3), (-0.4, 0.3)] * 30
    quiet, held = run(rows, OFF)
    assert not quiet["up/kernel"].frozen.any()
    np.testing.assert_array_equal(held["up"]["kernel"][:, 0], jnp.array(rows[-1]))
    state, held = run([rows[-1], rows[-2]], ON, quiet)
    assert state["up/kernel"].frozen[:, 0].tolist() == [True, False]
    np.testing.assert_array_equal(held["up"]["kernel"][:, 0], [-1.0, jnp.float32(0.3)])
    assert float(oscillation.frozen_share(state)) == pytest.approx(1 / 5)
    # From now on it stays, wherever the optimizer and the scale go, and even when switched off.
    moved = params(0.9, 0.3)
    scales = {**SCALES, "up": {"kernel": jnp.full(1, 0.5)}}
    state, held = oscillation.freeze(state, moved, scales, PLAN, OFF)
    np.testing.assert_array_equal(held["up"]["kernel"][:, 0], [-0.5, jnp.float32(0.3)])
    np.testing.assert_array_equal(held["embed"]["table"], TABLE)
    codes = tree.quantize(held, scales, PLAN)["up/kernel"].codes
    assert codes[0, 0] == -1
