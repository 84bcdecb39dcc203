"""Where mmllm keeps what it downloads, builds and trains: one folder, set by MMLLM_DATA."""

import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENVIRONMENT_VARIABLE = "MMLLM_DATA"


def data_dir() -> Path:
    """Returns the cache folder: $MMLLM_DATA, or ~/.cache/mmllm (not created here).

    Below it lie packages/ (downloads, unpacked), tfds/ (built corpora), tokens/ (backbone tokens
    cached for training) and runs/ (checkpoints and metrics).
    """
    chosen = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "").strip() or "~/.cache"
    return Path(base).expanduser().absolute() / "mmllm"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a temporary file name beside `path`, renamed to `path` only if the block succeeds.

    A reader therefore sees the old file or the whole new one, never a half-written one. What a
    killed process left of an earlier attempt is removed first.

    Raises:
      ValueError: something that is no file stands there; it is left alone.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} must be a file to write, but a folder or device stands there")
    # Beside it, as a rename is only atomic inside one file system.
    temporary = temporary_beside(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """A name of this process beside `path`, in a folder that is made if it is missing.

    What killed processes left under such names is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    # Machine and process, so that others can tell whether it is still being written; a random part,
    # as threads of one process may write the same file.
    writer = f"{platform.node()}-{os.getpid()}"
    return path.with_name(f".{writer}-{uuid.uuid4().hex[:8]}.{path.name}")


def _remove_abandoned(path: Path) -> None:
    """Removes temporary files and folders of `path` whose process, on this machine, is no more."""
    machine, name = re.escape(platform.node()), re.escape(path.name)
    pattern = re.compile(rf"\.{machine}-(\d+)-[0-9a-f]{{8}}\.{name}")
    for file in path.parent.iterdir():
        # Of this machine only: on a shared disk, another's process cannot be looked up here.
        match = pattern.fullmatch(file.name)
        if match and not _is_alive(int(match[1])):
            if file.is_dir():
                shutil.rmtree(file, ignore_errors=True)
            else:
                file.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 asks whether it exists, and harms nothing
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
