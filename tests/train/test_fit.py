"""The loop on a problem of three numbers: it resumes exactly, validates apart, and ends early."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.common.config import ReconstructionConfig
from mmllm.train import checkpoint, draws, fit, optimizer
from mmllm.train import step as step_lib
from mmllm.train.state import TrainState

SECTION = ReconstructionConfig(steps=8, learning_rate=0.1, log_every=2, checkpoint_every=4)
TX = optimizer.make(SECTION)
SOURCE = draws.Named(
    [np.arange(15, dtype=np.float16).reshape(5, 1, 1, 3) / 10], np.arange(5), np.ones(5)
)


def fresh() -> TrainState:
    params = {"kernel": jnp.ones(3)}
    return TrainState(jnp.zeros((), jnp.int32), params, TX.init(params))


def step(state: TrainState, batch: Any, shift: jax.Array):
    def loss_of(params):
        target = jnp.float32(batch["features"]).mean((0, 1, 2)) + shift
        return jnp.sum(jnp.square(params["kernel"] - target)), {}

    return step_lib.update(state, loss_of, TX)


ADVANCE = fit.jitted(step, jnp.zeros(()))


def run(workdir=None, *, said=None, advance=ADVANCE, stop_at=None, **options) -> fit.Fitted:
    section = options.pop("section", SECTION)
    loop = fit.Loop(section=section, path="toy", workdir=workdir, writes=True, **options)
    report = (lambda line: None) if said is None else said.append
    iterator = draws.named([SOURCE], 2, seed=0)
    return fit.fit(loop, fresh(), advance, iterator, report=report, stop_at=stop_at)


def same(one, other) -> bool:
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def scripted(*totals: float, every: int = 1, patience: int = 0) -> fit.Validation:
    """A validation whose totals are given, by its step."""
    return fit.Validation(
        losses=lambda state: {"val/total": totals[int(state.step) // every - 1]},
        every=every,
        patience=patience,
    )


def test_a_loop_without_a_folder_leaves_nothing_and_says_how_far_it_is(tmp_path):
    said = []
    fitted = run(said=said, name="toy")
    assert fitted.finished
    assert int(fitted.state.step) == 8
    assert [line.split("  ")[0] for line in said] == [f"toy: step {n}/8" for n in (2, 4, 6, 8)]
    assert said[0].split("  ")[1].startswith("loss ")
    assert said[-1].endswith("0 min left")


def test_with_examples_in_a_step_the_line_has_their_rate():
    said = []
    run(said=said, examples=26)
    assert "examples/s" in said[0]


def test_a_stopped_loop_resumes_bit_for_bit(tmp_path):
    whole, said = run(tmp_path / "whole"), []
    cut = run(tmp_path / "cut", stop_at=5)
    assert not cut.finished
    resumed = run(tmp_path / "cut", said=said, name="toy")
    assert said[0] == "toy: resumed from step 5"
    assert same(whole.state, resumed.state)
    assert [row["step"] for row in rows(tmp_path / "cut")] == [2, 4, 5, 6, 8]


def test_a_loss_that_is_not_finite_is_found_before_a_checkpoint(tmp_path):
    advance = fit.jitted(step, jnp.float32(np.nan))
    with pytest.raises(FloatingPointError, match=r"toy step 1: .*loss/total is not finite"):
        run(tmp_path, advance=advance, name="toy")
    assert checkpoint.latest_step(tmp_path / checkpoint.FOLDER) is None


def test_a_validation_that_is_not_finite_is_named(tmp_path):
    validation = scripted(float("nan"), patience=1)
    with pytest.raises(FloatingPointError, match="step 1: val/total is not finite; lower"):
        run(tmp_path, validation=validation)


def test_validation_changes_nothing_of_training(tmp_path):
    plain = run(tmp_path / "plain")
    watched = run(tmp_path / "watched", validation=scripted(3.0, 2.0, every=3))
    assert same(plain.state, watched.state)
    found = {row["step"]: row.get("val/total") for row in rows(tmp_path / "watched")}
    assert found == {2: None, 3: 3.0, 4: None, 6: 2.0, 8: None}
    losses = [
        {row["step"]: row["loss/total"] for row in rows(tmp_path / name) if "loss/total" in row}
        for name in ("plain", "watched")
    ]
    assert losses[0] == losses[1]


def test_patience_ends_a_run_with_its_best_state(tmp_path):
    best = run(tmp_path / "three", stop_at=3).state
    totals = (3.0, 2.0, 1.0, 1.0, 2.0, 0.1, 0.1, 0.1)
    fitted = run(tmp_path / "run", validation=scripted(*totals, patience=2))
    assert fitted.finished
    assert int(fitted.state.step) == 3  # steps 4 and 5 were not better
    assert same(fitted.state, best)
    kept = tmp_path / "run" / fit.BEST / checkpoint.FOLDER
    assert checkpoint.latest_step(kept) == 3
    assert rows(tmp_path / "run")[-1]["step"] == 5
    again = run(tmp_path / "run", validation=scripted(*totals, patience=2))
    assert again.finished
    assert same(again.state, best)


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_run_that_was_stopped_counts_on(tmp_path, stop):
    validation = scripted(3.0, 2.0, 1.0, 1.0, 2.0, 0.1, 0.1, 0.1, patience=2)
    run(tmp_path, validation=validation, stop_at=stop)
    fitted = run(tmp_path, validation=validation)
    assert (fitted.finished, int(fitted.state.step)) == (True, 3)


def test_a_best_state_that_was_saved_before_a_kill_comes_again(tmp_path):
    validation = scripted(*(9.0 - n for n in range(8)), patience=2)

    def kill(line):
        if line.startswith("step 6  validation"):
            raise KeyboardInterrupt

    loop = fit.Loop(section=SECTION, path="toy", workdir=tmp_path, validation=validation)
    with pytest.raises(KeyboardInterrupt, match="at step 6/8; the checkpoint of step 4"):
        fit.fit(loop, fresh(), ADVANCE, draws.named([SOURCE], 2, seed=0), report=kill)
    assert checkpoint.latest_step(tmp_path / fit.BEST / checkpoint.FOLDER) == 6
    assert int(run(tmp_path, validation=validation).state.step) == 8
    assert checkpoint.latest_step(tmp_path / fit.BEST / checkpoint.FOLDER) == 8


def test_a_run_that_begins_anew_forgets_the_best_of_the_one_before(tmp_path):
    run(tmp_path, validation=scripted(*[1.0] * 8, patience=9), stop_at=3)
    for path in sorted((tmp_path / checkpoint.FOLDER).rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    totals = (5.0, 4.0, 3.0, 9.0, 9.0, 9.0, 9.0, 9.0)
    assert int(run(tmp_path, validation=scripted(*totals, patience=2)).state.step) == 3


def test_without_patience_a_run_goes_to_its_last_step(tmp_path):
    fitted = run(tmp_path, validation=scripted(*(1.0 + n for n in range(8))))
    assert int(fitted.state.step) == 8
    assert not (tmp_path / fit.BEST).exists()


def test_a_loop_of_no_steps_gives_its_state_back():
    fitted = run(section=dataclasses.replace(SECTION, steps=0))
    assert fitted.finished
    assert same(fitted.state, fresh())
