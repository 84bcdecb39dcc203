"""Counts of several processes as one text, those of ended processes folded together.

`metrics` calls it for a scrape when PROMETHEUS_MULTIPROC_DIR names a folder. There each process
keeps a file of each kind of metric; without the folding, those of all that ever ended would be read
again and again. One process at a time folds and reads, so that none counts what moves twice.
"""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

import prometheus_client
import psutil
from prometheus_client import mmap_dict, multiprocess

KINDS = ("counter", "histogram")  # gauges count for the living alone: the supervisor removes them
ENDED = "ended"  # stands where other files have the process
LOCK_S = 5.0


def exposed(folder: Path) -> bytes:
    """The text that Prometheus scrapes, for all processes with files in a folder.

    Raises:
      TimeoutError: another process did not leave the folder in time.
    """
    with _alone(folder):
        fold(folder)
        registry = prometheus_client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, str(folder))
        return prometheus_client.generate_latest(registry)


def fold(folder: Path) -> None:
    """Adds the counts of ended processes to one file a kind."""
    for kind in KINDS:
        files = {path.stem.removeprefix(f"{kind}_"): path for path in folder.glob(f"{kind}_*.db")}
        whole = files.pop(ENDED, folder / f"{kind}_{ENDED}.db")
        _add(whole, [file for pid, file in files.items() if not psutil.pid_exists(int(pid))])


def _add(whole: Path, parts: list[Path]) -> None:
    if not parts:
        return
    # Beside the old one, so that an end in the middle leaves no half of a sum.
    new = whole.with_suffix(".new")
    new.unlink(missing_ok=True)
    sums = mmap_dict.MmapedDict(str(new))
    for path in [whole, *parts] if whole.exists() else parts:
        for key, value, at, _ in mmap_dict.MmapedDict.read_all_values_from_file(str(path)):
            old, old_at = sums.read_value(key)
            sums.write_value(key, old + value, max(at, old_at))
    sums.close()
    new.rename(whole)
    for path in parts:
        path.unlink()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    end = time.monotonic() + LOCK_S
    with (folder / "scrape.lock").open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TimeoutError("another process is at the metrics for too long") from None
                time.sleep(0.01)
        yield
