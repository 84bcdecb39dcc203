"""Rows of results: what tells one from another, what is written of it, and whether it still holds.

A file of results/ holds the rows of one kind. A row says which config it measured in two parts: the
file's "base", and the row's own differences from it by dotted name. So a field that was renamed
since can be told from a config that changed.
"""

import contextlib
import dataclasses
import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmllm.common import config as config_lib
from mmllm.common import paths

RESULTS = Path(__file__).parent / "results"
ABSENT = "(absent)"
"""Stands in a row's differences for a field of the base that the row's config does not have."""

Stored = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One thing to measure.

    Attributes:
      name: in the results and, where it has a label, in the tables.
      config: a dataclass that says all that decides the figures, besides code and machine.
      seed: of the run, where rows have several.
      start: fingerprint of the weights it starts from; "" where it starts from none, None where
        they are not known.
    """

    name: str
    config: Any
    seed: int | None = None
    start: str | None = ""

    @property
    def key(self) -> dict[str, Any]:
        """What a rerun has in common with the row whose place it takes."""
        # Not the config: a row measured with a changed config takes the place of the old one.
        found: dict[str, Any] = {"row": self.name}
        if self.seed is not None:
            found["seed"] = self.seed
        return found if self.start == "" else found | {"start": self.start}


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Keeps other processes out while the block runs; they wait.

    Args:
      path: a file that is made if it is missing, and stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the system lets go of it when a process is killed
        yield


def read(kind: str) -> dict[str, Any]:
    """The last result of a kind; one without rows if there is none."""
    path = RESULTS / f"{kind}.json"
    return json.loads(path.read_text()) if path.is_file() else {"kind": kind, "rows": []}


def is_finished(row: Row, found: Sequence[Stored]) -> bool:
    """Whether a row stands there already, measured from the same start with the same config."""
    # The digest as well: a config that has changed since is to be measured again.
    job = {**row.key, "config_sha256": config_lib.sha256(row.config)}
    return any(all(each.get(key, "") == value for key, value in job.items()) for each in found)


def write(kind: str, row: Row, fields: Stored) -> dict[str, Any]:
    """Puts a measured row in the place of the one with its key; the file is written whole.

    Args:
      kind: of result.
      row: what was measured.
      fields: figures and provenance (`mmllm.evaluate.provenance.record`).

    Returns:
      The whole result.
    """
    # Several processes may measure rows of one kind: each reads what the others wrote before.
    with lock(paths.data_dir() / "runs" / f"{kind}.lock"):
        result = read(kind)
        values = flat(config_lib.telling(row.config))
        # The first row's config; later rows, which share most of it, hold their differences alone.
        base = result.get("base", values)
        entry: dict[str, Any] = {
            **row.key,
            "config_sha256": config_lib.sha256(row.config),
            "config": difference(base, values),
            **fields,
        }
        entry["marks"] = marks(entry)
        others = [each for each in result["rows"] if key_of(each) != key_of(entry)]
        rows = [*others, entry]
        head = {"kind": kind, "mode": "full", "date": fields["date"]}
        result = {**head, "base": base, "rows": rows}
        with paths.written_whole(RESULTS / f"{kind}.json") as partial:
            partial.write_text(json.dumps(result, indent=1) + "\n")
    return result


def key_of(stored: Stored) -> tuple[Any, ...]:
    """Name, seed and start of a row in a file."""
    return tuple(stored.get(name, "") for name in ("row", "seed", "start"))


def marks(stored: Stored) -> list[str]:
    """Why a row cannot be measured again from what is committed; empty for one that can."""
    git = stored.get("git") or {}
    found = []
    if git.get("commit") is None:
        found.append("unknown source")
    elif git.get("dirty"):
        found.append("local changes")
    if stored.get("start", "") is None:
        found.append("unknown start")
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections -> value by dotted name; an empty section is a value."""
    found = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def difference(base: Stored, values: Stored) -> dict[str, Any]:
    """What differs from the base, by dotted name; ABSENT where only the base has the field."""
    changed = {name: value for name, value in values.items() if base.get(name, ABSENT) != value}
    return changed | {name: ABSENT for name in base if name not in values}


def stored_config(result: Stored, row: Stored) -> dict[str, Any] | None:
    """What the config of a row said, by the names of then; None where that was not recorded."""
    if "config" not in row:
        return None
    whole = {**result["base"], **row["config"]}
    return {name: value for name, value in whole.items() if value != ABSENT}


def is_stale(result: Stored, row: Stored, today: Any) -> bool:
    """Whether a row's config is gone, has changed, or is not known.

    A field that is new since, at its default, is no change: the default means "as before".

    Args:
      result: the file's content, for its base.
      row: one of its rows.
      today: the config that would be measured under that name now; None where there is none.
    """
    if today is None:
        return True
    if row["config_sha256"] == config_lib.sha256(today):
        return False
    then = stored_config(result, row)
    if then is None:
        return True
    # Another digest may come from new names alone, which change nothing that was measured.
    renamed = {config_lib.RENAMED.get(name, name): value for name, value in then.items()}
    return renamed != flat(config_lib.telling(today))
