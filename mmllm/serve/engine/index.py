"""The search index: vectors and their metadata in SQLite, and an exact search over all of them.

The service adds pictures to it and ranks them against a query. An index belongs to one model: its
file carries the model's fingerprint in name and content, so that another model begins an empty one
beside it. Several processes may share the file; each keeps the vectors in memory and reads what
the others changed before it searches. When one of them set the damaged file aside, the rest move to
the new one with their next call.

The search is one product of a matrix and a vector, whose answer is exact; at the default bound of
100 000 vectors of 256 it takes 10 to 30 ms on one core, about as long as to embed the query.
Approximate libraries are quicker beyond that, lose some of the hits, and are not compared here.
"""

import contextlib
import fcntl
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from mmllm.serve import problems

SCHEMA_VERSION = "1"
BUSY_S = 2.0  # wait for another process's write
MAX_METADATA_BYTES = 65_536
KEPT_REMOVALS = 10_000  # a process that missed more reads everything again
FIRST_ROWS = 1024

_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS items (
  row INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  vector BLOB NOT NULL,
  metadata TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS removals (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  row INTEGER NOT NULL
);
"""

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """An entry, and the cosine of its vector with the query's, -1..1."""

    id: str
    score: float
    metadata: dict[str, Any]


class Index:
    """An index in a file, open in this process; its methods may be called from any thread.

    Args:
      path: of the index; the fingerprint's beginning is added to its name.
      fingerprint: of the model whose vectors it holds.
      width: length of a vector.
      max_items: bound of entries.

    Raises:
      Problem: "index-unavailable" if the file can be neither opened nor made. One that is damaged
        is set aside under another name, and an empty one begun.
    """

    def __init__(self, path: Path, fingerprint: str, width: int, max_items: int) -> None:
        self.path = path.with_name(f"{path.stem}-{fingerprint[:16]}{path.suffix}")
        self.fingerprint, self.width, self.max_items = fingerprint, width, max_items
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # the one that is open: its device and inode
        self._clear()
        with self._lock, self._as_problem():
            self._connect()

    def __len__(self) -> int:
        return self._count

    def add(self, id: str, vector: Float[np.ndarray, "e"], metadata: Mapping[str, Any]) -> None:
        """Puts an entry in, in the place of an older one of the same id.

        Args:
          id: of the entry.
          vector: of any length but zero; kept as a unit vector.
          metadata: JSON.

        Raises:
          ValueError: a vector of another width, without direction or not finite, or too much
            metadata.
          Problem: "index-full", or "index-unavailable" if the file cannot be written.
        """
        unit = self._unit(vector)
        text = json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False)
        if (size := len(text.encode())) > MAX_METADATA_BYTES:
            raise ValueError(f"metadata must have at most {MAX_METADATA_BYTES} bytes, got {size}")
        with self._lock, self._as_problem(), self._transaction() as connection:
            old = connection.execute("SELECT row FROM items WHERE id = ?", (id,)).fetchone()
            if old is None:
                (count,) = connection.execute("SELECT count(*) FROM items").fetchone()
                if count >= self.max_items:
                    raise problems.Problem("index-full")
            else:
                self._delete(connection, old[0])
            connection.execute(
                "INSERT INTO items (id, vector, metadata) VALUES (?, ?, ?)",
                (id, unit.tobytes(), text),
            )

    def remove(self, id: str) -> bool:
        """Takes an entry out; whether there was one.

        Raises:
          Problem: "index-unavailable" if the file cannot be written.
        """
        with self._lock, self._as_problem(), self._transaction() as connection:
            old = connection.execute("SELECT row FROM items WHERE id = ?", (id,)).fetchone()
            if old is not None:
                self._delete(connection, old[0])
            return old is not None

    def search(self, vector: Float[np.ndarray, "e"], k: int) -> list[Found]:
        """The `k` entries closest to a vector, best first; of equals the older one first.

        Raises:
          ValueError: `k` below 1, or a vector as in `add`.
          Problem: "index-unavailable" if the file cannot be read.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        query = self._unit(vector)
        with self._lock, self._as_problem():
            connection = self._connect()
            self._refresh(connection)
            scores = self._vectors[: self._count] @ query
            rows = self._rows[: self._count]
            best = np.arange(self._count)
            if k < self._count:
                # All that score as high as the k-th, so that ties are broken by age alone.
                best = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
            best = best[np.lexsort((rows[best], -scores[best]))][:k]
            found = []
            for place in best:
                entry = connection.execute(
                    "SELECT id, metadata FROM items WHERE row = ?", (int(rows[place]),)
                ).fetchone()
                if entry is not None:  # else removed by another process just now
                    score = float(np.clip(scores[place], -1.0, 1.0))
                    found.append(Found(entry[0], score, json.loads(entry[1])))
            return found

    def close(self) -> None:
        """Closes the file; a later call opens it again."""
        with self._lock:
            self._disconnect()

    def _unit(self, vector: np.ndarray) -> Float32[np.ndarray, "e"]:
        if vector.shape != (self.width,):
            raise ValueError(f"vector must have shape ({self.width},), got {vector.shape}")
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if not np.isfinite(length) or length == 0:
            raise ValueError(f"vector must have a finite length above zero, got {length}")
        return np.ascontiguousarray(vector / length, np.float32)

    # What follows runs under the lock.

    def _clear(self) -> None:
        self._vectors = np.zeros((0, self.width), np.float32)
        self._rows = np.zeros(0, np.int64)
        self._places: dict[int, int] = {}
        self._count = self._last_row = self._last_removal = 0
        self._version = -1

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    @contextlib.contextmanager
    def _as_problem(self) -> Iterator[None]:
        """Turns what SQLite raises into a Problem; a damaged file is set aside by the next call."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            log.error("the index %s is not available: %s", self.path.name, error)
            self._disconnect()
            self._clear()
            raise problems.Problem("index-unavailable", retry_after_s=1.0) from error

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._is_same_file():
                return self._connection
            log.warning("another process began the index %s anew: it is reopened", self.path.name)
            self._disconnect()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # One process at a time looks whether the file is sound and repairs it.
        with self.path.with_suffix(".lock").open("a") as lock:
            _lock_within(lock.fileno(), BUSY_S)
            try:
                self._connection = self._open()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):  # locked, full, not writable
                    raise
                self._rename_damaged(error)
                self._connection = self._open()
            self._file = _identity(self.path)
        self._clear()
        self._refresh(self._connection)
        return self._connection

    def _is_same_file(self) -> bool:
        """Whether the open file still has the index's name: a repair elsewhere renames it."""
        try:
            return _identity(self.path) == self._file
        except FileNotFoundError:
            return False

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")  # readers of other processes go on
            connection.execute("PRAGMA synchronous = NORMAL")
            # Not integrity_check, which also compares each index with its table and takes longer.
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            connection.executescript(_SCHEMA)
            about = {
                "schema_version": SCHEMA_VERSION,
                "fingerprint": self.fingerprint,
                "width": str(self.width),
            }
            connection.executemany(
                "INSERT OR IGNORE INTO about (key, value) VALUES (?, ?)", about.items()
            )
            stored = dict(connection.execute("SELECT key, value FROM about"))
            if stored != about:
                raise sqlite3.DatabaseError(f"it was made for another model or version: {stored}")
            sizes = "SELECT count(*) FROM items WHERE length(vector) != ?"
            if connection.execute(sizes, (4 * self.width,)).fetchone() != (0,):
                raise sqlite3.DatabaseError("it holds vectors of another width")
        except BaseException:
            connection.close()
            raise
        return connection

    def _rename_damaged(self, error: Exception) -> None:
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        log.error(
            "the index %s is damaged (%s): it is kept as %s and an empty one begun",
            self.path.name,
            error,
            aside.name,
        )
        for end in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + end)
            with contextlib.suppress(FileNotFoundError):
                part.rename(aside.with_name(aside.name + end))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is written whole or not at all."""
        connection = self._connect()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
            if not self._is_same_file():  # since `_connect`: it is written where nobody looks
                raise sqlite3.OperationalError("the file was set aside during the write")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite may have done it itself
                connection.execute("ROLLBACK")
            raise
        self._refresh(connection, always=True)

    def _delete(self, connection: sqlite3.Connection, row: int) -> None:
        connection.execute("DELETE FROM items WHERE row = ?", (row,))
        connection.execute("INSERT INTO removals (row) VALUES (?)", (row,))
        connection.execute(
            "DELETE FROM removals WHERE number <= last_insert_rowid() - ?", (KEPT_REMOVALS,)
        )

    def _refresh(self, connection: sqlite3.Connection, always: bool = False) -> None:
        """Reads what this or another process changed since the last time."""
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version == self._version and not always:
            return
        connection.execute("BEGIN")  # one state of the file for all that is read
        try:
            (first,) = connection.execute("SELECT min(number) FROM removals").fetchone()
            # Removals that this process has not seen are no longer on record: read all again.
            if first is not None and first > self._last_removal + 1:
                self._clear()
            removed = connection.execute(
                "SELECT number, row FROM removals WHERE number > ? ORDER BY number",
                (self._last_removal,),
            ).fetchall()
            for number, row in removed:
                self._remove_row(row)
                self._last_removal = number
            added = connection.execute(
                "SELECT row, vector FROM items WHERE row > ? ORDER BY row", (self._last_row,)
            )
            for row, vector in added:
                self._insert_row(row, np.frombuffer(vector, np.float32))
        finally:
            connection.execute("COMMIT")
        self._version = version

    def _insert_row(self, row: int, vector: np.ndarray) -> None:
        if self._count == len(self._rows):
            more = max(FIRST_ROWS, len(self._rows))
            self._vectors = np.concatenate(
                [self._vectors, np.zeros((more, self.width), np.float32)]
            )
            self._rows = np.concatenate([self._rows, np.zeros(more, np.int64)])
        self._vectors[self._count], self._rows[self._count] = vector, row
        self._places[row] = self._count
        self._count += 1
        self._last_row = row

    def _remove_row(self, row: int) -> None:
        """The last vector takes the place of the one that goes."""
        place = self._places.pop(row, None)
        if place is None:  # came and went between two looks
            return
        self._count -= 1
        if place != self._count:
            self._vectors[place] = self._vectors[self._count]
            self._rows[place] = self._rows[self._count]
            self._places[int(self._rows[place])] = place


def _identity(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_dev, about.st_ino


def _lock_within(file: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
