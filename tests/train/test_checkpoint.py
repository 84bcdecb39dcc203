"""Checkpoints: what is on disk is whole or absent, and every failure names its cause."""

import contextlib
import errno
import gc
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tiny
from mmllm.common import config as config_lib
from mmllm.common import mesh as mesh_lib
from mmllm.data import pipeline, synthetic
from mmllm.train import checkpoint, optimizer
from mmllm.train import state as state_lib

# The storage library drops its pending work when one write fails, and Python remarks on it.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]

CONFIG = config_lib.resolve(tiny.get_config())


@pytest.fixture
def state():
    params = state_lib.init_params(CONFIG, synthetic.CAPTIONS)
    return state_lib.fresh(params, optimizer.make(CONFIG.train))


@pytest.fixture
def iterator():
    return pipeline.batches(CONFIG, synthetic.training_arrays(CONFIG))


def test_state_and_iterator_come_back(tmp_path, state, iterator):
    next(iterator)
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=2)
    checkpoints.save(state.replace(step=jnp.int32(7)), iterator)
    expected = next(iterator)
    fresh = pipeline.batches(CONFIG, synthetic.training_arrays(CONFIG))
    restored = checkpoints.restore(state, fresh)
    assert int(restored.step) == 7
    assert checkpoints.latest_step == 7
    assert (next(fresh)["ids"] == expected["ids"]).all()
    checkpoints.close()


def test_only_the_newest_are_kept(tmp_path, state, iterator):
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(state.replace(step=jnp.int32(step)), iterator)
    checkpoints.close()
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir() if path.is_dir())
    assert kept == ["2", "3"]


def test_a_corrupt_checkpoint_is_named(tmp_path, state, iterator):
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    checkpoints.save(state.replace(step=jnp.int32(5)), iterator)
    checkpoints.close()
    for path in (tmp_path / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"x" * 10)
    again = checkpoint.Checkpoints(tmp_path, keep=1)
    with pytest.raises(ValueError, match="checkpoint .* cannot be restored"):
        again.restore(state, iterator)
    again.close()


def test_a_full_disk_is_an_os_error_that_says_so(tmp_path, state, iterator, monkeypatch):
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    checkpoints.save(state.replace(step=jnp.int32(1)), iterator)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints._saver, "save_checkpointables", full)
    with pytest.raises(OSError, match="checkpoint 2 could not be written .*free space and resume"):
        checkpoints.save(state.replace(step=jnp.int32(2)), iterator)
    assert checkpoints.latest_step == 1
    checkpoints.close()


def test_too_little_room_is_refused_before_anything_is_written(
    tmp_path, state, iterator, monkeypatch
):
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="MB are free; free space and resume"):
        checkpoints.save(state.replace(step=jnp.int32(3)), iterator)
    assert list((tmp_path / "checkpoints").iterdir()) == []
    checkpoints.close()


@pytest.fixture(autouse=True)
def leftovers():
    """What Python remarks on dropped work, it remarks here and in no later test."""
    yield
    gc.collect()


@contextlib.contextmanager
def files_limited_to(size_bytes):
    """Writing beyond this size fails, in this process, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_that_does_not_fit_the_disk_leaves_the_one_before_it(
    tmp_path, state, iterator
):
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    checkpoints.save(state.replace(step=jnp.int32(1)), iterator)
    with (
        files_limited_to(16_000),
        pytest.raises(OSError, match="checkpoint 2 could not be") as full,
    ):
        checkpoints.save(state.replace(step=jnp.int32(2)), iterator)
    assert "\n" not in str(full.value)
    assert checkpoints.latest_step == 1
    checkpoints.close()

    params = checkpoint.load_params(tmp_path)
    for one, other in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(one, other)
    again = checkpoint.Checkpoints(tmp_path, keep=1)
    assert again.latest_step == 1
    again.save(state.replace(step=jnp.int32(2)), iterator)
    assert again.latest_step == 2
    again.close()


READER = """
import sys
from pathlib import Path
import jax
import numpy as np
from mmllm.train import checkpoint
assert jax.device_count() == 1
np.savez(sys.argv[2], *jax.tree.leaves(checkpoint.load_params(Path(sys.argv[1]))))
"""


@pytest.mark.slow
def test_a_run_of_eight_devices_is_read_on_one(tmp_path, state, iterator):
    assert jax.device_count() == 8
    state = jax.device_put(state, mesh_lib.state_sharding(mesh_lib.make_mesh(4, 2), state))
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    checkpoints.save(state.replace(step=state.step + 1), iterator)
    checkpoints.close()
    command = [sys.executable, "-W", "error", "-c", READER, tmp_path, tmp_path / "params.npz"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "XLA_FLAGS": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    read = np.load(tmp_path / "params.npz")
    for one, other in zip(jax.tree.leaves(state.params), read.values(), strict=True):
        np.testing.assert_array_equal(np.asarray(one), other)


def test_an_interrupted_save_is_not_reported_as_a_failed_one(
    tmp_path, state, iterator, monkeypatch
):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    def complain():
        raise RuntimeError("a write was cut off")

    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    saver = checkpoints._saver
    with monkeypatch.context() as patch:
        patch.setattr(saver, "save_checkpointables", interrupt)
        patch.setattr(saver, "close", complain)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(state.replace(step=jnp.int32(1)), iterator)
        checkpoints.close()
    saver.close()


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="train first"):
        checkpoint.load_params(tmp_path)
