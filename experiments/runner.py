"""What every experiment does with what it measured: one JSON file in results/, whole or none."""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmllm.common import config as config_lib
from mmllm.common import paths
from mmllm.evaluate import provenance

RESULTS = Path(__file__).parent / "results"


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Keeps other processes out while the block runs; they wait.

    Args:
      path: a file that is made if it is missing, and stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write(
    kind: str,
    config: Any,
    fields: dict[str, Any],
    name: str | None = None,
    path: Path | None = None,
) -> Path:
    """Writes a full run's result with where it comes from.

    Args:
      kind: of result.
      config: what was measured, a whole config or the sizes of a bundle's model.
      fields: the figures.
      name: of the model, where the config has none.
      path: of the file; named by its kind unless given.

    Returns:
      The file.
    """
    result = {
        "kind": kind,
        "mode": "full",
        "config": name or config.name,
        "config_sha256": config_lib.sha256(config),
        **provenance.record(),
        **fields,
    }
    path = path or RESULTS / f"{kind}.json"
    with paths.written_whole(path) as partial:
        partial.write_text(json.dumps(result, indent=1) + "\n")
    return path
