"""Whether this process may write where its settings tell it to, found out before it serves.

`mmllm serve --check` asks here: a service that runs already loses log lines rather than requests,
and answers "index-unavailable", so a wrong path would be noticed late.
"""

import tempfile
from pathlib import Path

from mmllm.serve import logs
from mmllm.serve import settings as settings_lib


def check(settings: settings_lib.Settings) -> None:
    """Writes beside the log and beside the index, and leaves nothing there.

    Args:
      settings: log_file and index_path.

    Raises:
      ValueError: a place that cannot be written; the message names the setting.
    """
    if settings.log_file is not None:
        logs.check_place(settings.log_file)
        _write("log_file", settings.log_file)
    if settings.index_items:
        _write("index_path", settings.index_path, make_folder=True)  # as the index does


def _write(name: str, path: Path, make_folder: bool = False) -> None:
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            with path.open("ab"):
                pass
        with tempfile.TemporaryFile(dir=path.parent) as file:
            file.write(b"\0")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        variable = settings_lib.PREFIX + name.upper()
        raise ValueError(f"{variable}: cannot write {str(path)!r}: {reason}") from None
