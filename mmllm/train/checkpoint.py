"""Saves and restores a run: train state and data iterator. The only file that knows Orbax."""

import errno
import shutil
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from mmllm.train.state import TrainState

# What the storage library says of a disk that is full, read-only or over a quota.
DISK_SIGNS = ("No space left", "Error writing local file", "os_error_code", "RESOURCE_EXHAUSTED")

FOLDER = "checkpoints"  # in a run's folder


class Checkpoints:
    """Numbered checkpoints of a run below `<workdir>/checkpoints`; each is whole or absent."""

    def __init__(self, workdir: Path, keep: int) -> None:
        self._folder = (workdir / FOLDER).absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._failed = False
        newest: Any = ocp.training.preservation_policies.LatestN(keep)
        self._saver = ocp.training.Checkpointer(str(self._folder), preservation_policy=newest)

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return latest_step(self._folder)

    def save(self, state: TrainState, iterator: grain.DatasetIterator) -> None:
        """Writes state and iterator under the state's step.

        Raises:
          OSError: the disk is full or cannot be written; earlier checkpoints stay as they are.
        """
        step = int(jax.device_get(state.step))
        # A resumed run may end where its checkpoint stands already.
        if self.latest_step == step:
            return
        self._check_room(state, step)
        try:
            self._saver.save_checkpointables(step, {"state": state, "data": iterator})
        except BaseException as error:  # an interrupt as well
            self._failed = True
            raise _disk_error(error, self._folder, step) or error from error

    def _check_room(self, state: TrainState, step: int) -> None:
        """Refuses before anything is written: a storage library that fails halfway is loud."""
        need = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self._folder).free
        if free < need:
            self._failed = True
            raise OSError(
                errno.ENOSPC,
                f"checkpoint {step} could not be written to {self._folder}: it needs "
                f"{need / 1e6:.0f} MB, {free / 1e6:.0f} MB are free; free space and resume",
            )

    def restore(self, state: TrainState, iterator: grain.DatasetIterator) -> TrainState:
        """Restores the newest checkpoint into the shapes and shardings of `state`.

        The iterator is moved to its place as well.

        Raises:
          ValueError: a checkpoint that cannot be read, or is of another model.
        """
        # Data and state together: a batch seen twice, or skipped, is another run.
        try:
            loaded = self._saver.load_checkpointables(
                self.latest_step, abstract_checkpointables={"state": state, "data": iterator}
            )
        except Exception as error:
            raise ValueError(
                f"checkpoint {self.latest_step} in {self._folder} cannot be restored "
                f"({first_line(error)}); remove that folder to start from the one before it, "
                "or use another --workdir"
            ) from error
        return loaded["state"]

    def close(self) -> None:
        """Waits for pending writes; a failure that `save` has reported is not raised again."""
        try:
            self._saver.close()
        except Exception:
            if not self._failed:
                raise


def latest_step(folder: Path) -> int | None:
    """Step of the newest checkpoint in a folder, or None."""
    # Orbax renames a checkpoint to its number once it is whole.
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=None)


def load_params(workdir: Path) -> Any:
    """Parameters of a run's newest checkpoint as numpy arrays: {"model": ..., "prototypes": ...}.

    Raises:
      FileNotFoundError: no checkpoint below `workdir`.
    """
    folder = (workdir / FOLDER).absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"no checkpoints in {workdir}: train first (python -m mmllm.train)")
    with ocp.training.Checkpointer(str(folder)) as saver:
        if saver.latest is None:
            raise FileNotFoundError(f"no finished checkpoint in {folder}")
        step = saver.latest.step
        # Shapes alone, without the devices it was saved on, which this machine may lack.
        shapes: Any = saver.metadata(step).metadata
        # The moments, twice the size of the parameters, are not read.
        target = jax.tree.map(lambda _: ocp.PLACEHOLDER, shapes)
        target["params"] = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), shapes["params"])
        return saver.load_checkpointables(step, {"state": target})["state"]["params"]


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _disk_error(error: BaseException, folder: Path, step: int) -> OSError | None:
    text = str(error)
    if not isinstance(error, OSError) and not any(sign in text for sign in DISK_SIGNS):
        return None
    number = getattr(error, "errno", None) or errno.ENOSPC
    return OSError(
        number,
        f"checkpoint {step} could not be written to {folder}: {first_line(error)}; "
        "free space and resume",
    )
