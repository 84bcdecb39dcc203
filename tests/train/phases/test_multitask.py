"""A whole tiny run: it learns, resumes bit for bit, and fails in one clear line."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from configs import tiny
from mmllm.common import config as config_lib
from mmllm.data import pipeline, synthetic
from mmllm.train import checkpoint, fit, optimizer, validation
from mmllm.train import run as run_lib
from mmllm.train import state as state_lib
from mmllm.train.phases import multitask
from mmllm.train.student import plan
from tests import tiny_run

# One step's sums, split over eight devices, are added in another order.
SHARDING_TOLERANCE = 2e-4


def make_config(**changes):
    cfg = tiny.get_config()
    cfg.train.steps, cfg.train.checkpoint_every, cfg.train.log_every = 6, 3, 2
    cfg.update_from_flattened_dict({key.replace("__", "."): v for key, v in changes.items()})
    return config_lib.resolve(cfg)


def run(config, workdir, **options):
    arrays = synthetic.training_arrays(config)
    return multitask.train(config, arrays, workdir, report=lambda line: None, **options)


def metrics_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    return run(make_config(), workdir), workdir


def test_every_loss_is_logged_and_the_total_falls(finished):
    rows = metrics_of(finished[1])
    assert [row["step"] for row in rows] == [2, 4, 6]
    for name in ("caption", "vqa", "retrieval", "text_caption", "text_teacher", "lines", "total"):
        assert np.isfinite(rows[0][f"loss/{name}"])
    assert rows[-1]["loss/total"] < rows[0]["loss/total"]
    assert rows[-1]["examples_per_second"] > 0


def test_stop_and_resume_equals_uninterrupted_bit_for_bit(finished, tmp_path):
    run(make_config(), tmp_path, stop_at=4)
    resumed = run(make_config(), tmp_path)
    for one, other in zip(jax.tree.leaves(finished[0]), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert [row["step"] for row in metrics_of(tmp_path)] == [2, 4, 6]


def test_validation_is_written_down_and_changes_no_bit(finished, tmp_path):
    config = make_config(train__validate_every=3, train__validation_batches=1)
    unseen = synthetic.training_arrays(config, seed=1)
    watched = run(config, tmp_path, unseen=unseen)
    for one, other in zip(jax.tree.leaves(finished[0]), jax.tree.leaves(watched), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    rows = {row["step"]: row for row in metrics_of(tmp_path)}
    assert [step for step, row in rows.items() if "val/total" in row] == [3, 6]
    assert rows[6]["val/total"] < rows[3]["val/total"]
    for row in metrics_of(finished[1]):
        assert row["loss/total"] == rows[row["step"]]["loss/total"]


def test_a_run_that_ends_early_stands_at_its_last_step_with_its_best_state(tmp_path, monkeypatch):
    config = make_config(train__validate_every=1, train__patience=2)
    totals = iter([3.0, 1.0, 2.0, 2.0])
    given = fit.Validation(losses=lambda state: {"val/total": next(totals)}, every=1, patience=2)
    monkeypatch.setattr(validation, "of", lambda *_: given)
    ended = run(config, tmp_path / "early", unseen=synthetic.training_arrays(config))
    best = run(make_config(), tmp_path / "best", stop_at=2)
    assert int(ended.step) == 6
    for one, other in zip(jax.tree.leaves(ended.params), jax.tree.leaves(best.params), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    kept = checkpoint.load_params(tmp_path / "early")
    jax.tree.map(np.testing.assert_array_equal, kept, jax.device_get(ended.params))
    assert json.loads((tmp_path / "early" / run_lib.SUMMARY).read_text()) == {"best_step": 2}


@pytest.mark.slow
def test_eight_devices_agree_with_one(finished, tmp_path):
    run(make_config(train__mesh_data=4, train__mesh_model=2), tmp_path)
    for one, other in zip(metrics_of(finished[1]), metrics_of(tmp_path), strict=True):
        for name in one:
            if name.startswith("loss/"):
                assert one[name] == pytest.approx(other[name], rel=SHARDING_TOLERANCE), name


def test_a_loss_that_is_not_finite_stops_the_run_before_a_checkpoint(tmp_path):
    config = make_config()
    arrays = synthetic.training_arrays(config)
    features = tuple(view * np.float16(np.nan) for view in arrays.captioned["emoji"].features)
    emoji = dataclasses.replace(arrays.captioned["emoji"], features=features)
    broken = dataclasses.replace(arrays, captioned={**arrays.captioned, "emoji": emoji})
    with pytest.raises(FloatingPointError, match="is not finite; the last checkpoint is untouched"):
        multitask.train(config, broken, tmp_path, report=lambda line: None)
    with pytest.raises(FileNotFoundError, match="no finished checkpoint"):
        checkpoint.load_params(tmp_path)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (2, "interrupted at step 2/6; no checkpoint yet, so the same command starts anew"),
        (4, "interrupted at step 4/6; the checkpoint of step 3 stands, .* resumes there"),
    ],
)
def test_an_interrupt_names_the_step_and_the_checkpoint_that_stands(tmp_path, step, message):
    def interrupt(line):
        if line.startswith(f"step {step}/"):
            raise KeyboardInterrupt

    config = make_config()
    with pytest.raises(KeyboardInterrupt, match=message):
        multitask.train(config, synthetic.training_arrays(config), tmp_path, report=interrupt)


def test_parameters_of_the_newest_checkpoint_are_read_back(finished):
    params = checkpoint.load_params(finished[1])
    for one, other in zip(
        jax.tree.leaves(finished[0].params), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(one), other)


def test_a_batch_depends_on_seed_and_step_alone():
    config = make_config()
    arrays = synthetic.training_arrays(config)
    one, other = pipeline.batches(config, arrays), pipeline.batches(config, arrays)
    first = [next(one) for _ in range(3)]
    for expected, got in zip(first, (next(other) for _ in range(3)), strict=True):
        for name, value in expected.items():
            np.testing.assert_array_equal(value, got[name])
    assert any((first[0][name] != first[1][name]).any() for name in ("ids", "lines", "texts"))


STUDENT = dataclasses.replace(
    tiny_run.STUDENT,
    train=dataclasses.replace(
        tiny_run.STUDENT.train, steps=5, warmup_steps=1, log_every=2, checkpoint_every=2
    ),
    quant=dataclasses.replace(tiny_run.STUDENT.quant, freeze_from=0.9),
)


@pytest.fixture(scope="module")
def teacher():
    return jax.device_get(state_lib.init_params(tiny_run.CONFIG, synthetic.CAPTIONS))


@pytest.fixture(scope="module")
def taught(tmp_path_factory, teacher):
    workdir = tmp_path_factory.mktemp("taught")
    return run(STUDENT, workdir, teacher=teacher), workdir


@pytest.mark.slow
def test_a_taught_run_logs_what_it_learned_and_how_far_codes_and_scales_moved(taught):
    rows = metrics_of(taught[1])
    assert [row["step"] for row in rows] == [2, 4, 5]
    for name in ("caption", "distill_logits", "distill_lines", "distill_embeddings", "total"):
        assert np.isfinite([row[f"loss/{name}"] for row in rows]).all()
    assert not any(name.startswith("flips/") for name in rows[0])
    flips = {name: value for name, value in rows[1].items() if name.startswith("flips/")}
    assert len(flips) == 5
    assert all(0 < value < 1 for value in flips.values())
    assert max(flips, key=flips.__getitem__) == "flips/embed/table"  # on the finest grid
    assert rows[0]["scale/embed/table"] != 1.0  # since the start, whatever was looked at first
    assert rows[1]["scale/embed/table"] != rows[0]["scale/embed/table"]
    assert 0 <= rows[2]["frozen"] < 0.1  # five steps are few to oscillate in


@pytest.mark.slow
def test_a_taught_run_leaves_its_teacher_as_it_is_and_keeps_no_bank(taught, teacher):
    fresh = state_lib.init_params(tiny_run.CONFIG, synthetic.CAPTIONS)
    jax.tree.map(np.testing.assert_array_equal, teacher, dict(fresh))
    kept = checkpoint.load_params(taught[1])
    assert set(kept) == {"model", "scales"}
    jax.tree.map(np.testing.assert_array_equal, kept, jax.device_get(taught[0].params))


@pytest.mark.slow
def test_a_taught_run_stops_and_resumes_bit_for_bit(taught, teacher, tmp_path):
    run(STUDENT, tmp_path, teacher=teacher, stop_at=3)
    resumed = run(STUDENT, tmp_path, teacher=teacher)
    for one, other in zip(jax.tree.leaves(taught[0]), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.slow
def test_a_student_rounds_in_the_last_share_of_its_steps_and_resumes_where_that_begins(
    teacher, tmp_path
):
    """Five steps, three of them in float: there the first has nothing to learn from its teacher."""
    config = dataclasses.replace(
        STUDENT,
        train=dataclasses.replace(STUDENT.train, log_every=1, checkpoint_every=5),
        quant=dataclasses.replace(STUDENT.quant, share=0.4),
    )
    whole = run(config, tmp_path / "whole", teacher=teacher)
    run(config, tmp_path / "cut", teacher=teacher, stop_at=3)
    before = checkpoint.load_params(tmp_path / "cut")["scales"]
    resumed = run(config, tmp_path / "cut", teacher=teacher)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    first, *_, last = metrics_of(tmp_path / "whole")
    assert first["loss/distill_logits"] == pytest.approx(0.0, abs=1e-6)
    assert last["loss/distill_logits"] > 1e-4
    tx = optimizer.make(config.train, config.quant.scale_rate)
    untouched = state_lib.init_student(config, plan.trained(config).weights, teacher, tx)
    jax.tree.map(np.testing.assert_array_equal, before, dict(untouched.params["scales"]))
    after = jax.device_get(whole.params["scales"])
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), before, after)))


@pytest.mark.parametrize(("share", "steps"), [(1.0, 0), (0.5, 5), (0.25, 8), (0.01, 9)])
def test_the_steps_before_the_share_that_rounds_are_in_float(share, steps):
    config = dataclasses.replace(
        tiny_run.STUDENT,
        train=dataclasses.replace(tiny_run.STUDENT.train, steps=10),
        quant=dataclasses.replace(tiny_run.STUDENT.quant, share=share),
    )
    assert multitask.float_steps(config) == steps
