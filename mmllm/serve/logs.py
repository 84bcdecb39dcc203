"""Log lines as JSON, to standard output or rotating files; no secret in them, no request lost.

structlog's loggers and the standard library's (uvicorn's, those of libraries) end here, in one
form. A line is formatted where it is logged and written by a thread of its own, so that a full
disk, a slow one or a pipe nobody reads costs lines, which are counted, and never a request.
"""

import atexit
import contextlib
import logging
import os
import queue
import re
import select
import sys
import threading
from collections.abc import Callable, Mapping
from logging import handlers
from pathlib import Path
from typing import Any

import concurrent_log_handler
import structlog
from structlog.typing import EventDict

from mmllm.serve import settings as settings_lib
from mmllm.serve import tracing

QUEUE_LINES = 10_000
CLOSE_S = 2.0
MAX_VALUE_CHARS, MAX_TRACE_CHARS = 1_000, 10_000  # characters
MAX_DEPTH, MAX_INNER = 4, 100
STDOUT, STDERR = 1, 2
HIDDEN = "[hidden]"
# A name that has one of these words in it, as in "metrics_token" or "X-API-Key".
CREDENTIALS = {"authorization", "cookie", "credential", "credentials", "jwt", "key", "apikey"}
CREDENTIALS |= {"password", "secret", "token"}
PAYLOADS = {"answer", "body", "caption", "image", "images", "payload", "prompt", "query"}
PAYLOADS |= {"question", "text", "texts"}
_WORDS = re.compile(r"[a-z]+")
_SECRETS = re.compile(
    r"(?i:\b(?:bearer|basic)\s+[^\s\"',;]+)"
    r"|data:[\w.+/-]*;base64,[\w+/=-]*"
    r"|\beyJ[\w-]+\.[\w-]+\.[\w-]*"  # a JSON web token
    r"|(?<=://)[^\s/@]+@"  # of an URL
)

Dropped = Callable[[int], None]
"""Told how many lines were lost."""


class Logs:
    """The way of log lines out of this process; made by `configure`.

    Args:
      sink: writes formatted lines; its `handleError` is taken over.
      formatter: makes them.
      level: the least that is written.
      dropped: told of lines that were lost.
    """

    def __init__(
        self, sink: logging.Handler, formatter: logging.Formatter, level: str, dropped: Dropped
    ) -> None:
        self._sink, self._dropped = sink, dropped
        self._failures, self._announced = 0, False
        self._lines: queue.Queue[logging.LogRecord | None] = queue.Queue(QUEUE_LINES)
        self._handler = _EnqueueHandler(self._lines, self._lost)
        self._handler.setFormatter(formatter)
        vars(sink)["handleError"] = self._failed
        self._level = logging.root.level
        logging.root.addHandler(self._handler)
        logging.root.setLevel(level)
        self._thread = threading.Thread(target=self._write, name="logs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Takes no more lines and writes those that wait, within two times CLOSE_S."""
        if self._handler not in logging.root.handlers:
            return
        logging.root.removeHandler(self._handler)
        logging.root.setLevel(self._level)
        try:
            self._lines.put(None, timeout=CLOSE_S)
        except queue.Full:  # the writer is stuck: it shall end once it no longer is
            self._lines.get_nowait()
            self._lines.put_nowait(None)
        self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            with contextlib.suppress(OSError, ValueError):
                self._sink.close()

    def _write(self) -> None:
        while (record := self._lines.get()) is not None:
            before = self._failures
            self._sink.handle(record)
            if self._failures == before:
                self._announced = False

    def _failed(self, record: logging.LogRecord) -> None:
        self._failures += 1
        self._lost()

    def _lost(self) -> None:
        self._dropped(1)
        if self._announced:  # once an outage
            return
        self._announced = True
        error = sys.exc_info()[1]
        reason = getattr(error, "strerror", None) or type(error).__name__
        with contextlib.suppress(OSError, ValueError):
            if select.select([], [STDERR], [], 0)[1]:  # a pipe may be full as well
                os.write(STDERR, f"mmllm: log lines are being lost ({reason})\n".encode())


class _EnqueueHandler(handlers.QueueHandler):
    """Formats a record where it is logged and never waits for the writer."""

    def __init__(self, lines: Any, lost: Callable[[], None]) -> None:
        super().__init__(lines)
        self._lost = lost

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, the library's name
        self._lost()


class _Descriptor(logging.Handler):
    """Writes to an open descriptor, with no buffer that could hold a lost line's rest."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor, self._torn = descriptor, False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = ("\n" if self._torn else "") + self.format(record) + "\n"
            rest = memoryview(line.encode("utf-8", "backslashreplace"))
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
                self._torn = bool(rest)
        except Exception:
            self.handleError(record)


_active: Logs | None = None


def configure(
    settings: settings_lib.Settings,
    dropped: Dropped = lambda lines: None,
    descriptor: int = STDOUT,
) -> Logs:
    """Sends the log lines of this process where the settings say, in place of an earlier call.

    Threads do not survive a fork: call it in each process. uvicorn needs `log_config=None`.

    Args:
      settings: log_level, log_file, log_bytes and log_backups.
      dropped: told of lost lines: `Metrics.log_dropped`.
      descriptor: written to where there is no log_file.

    Raises:
      ValueError: log_file lies in no folder, or is one.
    """
    global _active
    if settings.log_file is None:
        sink: logging.Handler = _Descriptor(descriptor)
    else:
        sink = _file(settings.log_file, settings.log_bytes, settings.log_backups)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.contextvars.merge_contextvars],
        processors=[
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            tracing.add_ids,
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer(default=str),
        ],
    )
    for chatty in ("asyncio", "PIL", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    close()
    _active = Logs(sink, formatter, settings.log_level, dropped)
    return _active


@atexit.register
def close() -> None:
    """Writes what waits and lets go of the logs; does nothing where there are none."""
    global _active
    if _active is not None:
        _active.close()
        _active = None


def redact(logger: Any, method: str, event: EventDict) -> EventDict:
    """Hides credentials and payloads by the names they go under, and cuts what is long."""
    return {name: _shown(name, value, MAX_DEPTH) for name, value in event.items()}


def _shown(name: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if not (CREDENTIALS | PAYLOADS).isdisjoint(_WORDS.findall(name.lower())):
        return HIDDEN
    if isinstance(value, Mapping) and depth:
        inner = list(value.items())[:MAX_INNER]
        return {str(key): _shown(str(key), part, depth - 1) for key, part in inner}
    if isinstance(value, list | tuple) and depth:
        return [_shown(name, part, depth - 1) for part in value[:MAX_INNER]]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    longest = MAX_TRACE_CHARS if name in ("exception", "stack") else MAX_VALUE_CHARS
    text = _SECRETS.sub(HIDDEN, str(value)[: 10 * MAX_TRACE_CHARS])
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} [...] {text[-half:]}"


def check_place(path: Path) -> None:
    """Refuses a log file that cannot be one.

    Raises:
      ValueError: it lies in no folder, or is one.
    """
    if not path.parent.is_dir():
        raise ValueError(f"log_file {str(path)!r} must lie in a folder that exists")
    if path.is_dir():
        raise ValueError(f"log_file {str(path)!r} must be a file, but is a folder")


def _file(path: Path, max_bytes: int, backups: int) -> logging.Handler:
    check_place(path)
    return concurrent_log_handler.ConcurrentRotatingFileHandler(
        str(path), maxBytes=max_bytes, backupCount=backups, encoding="utf-8", chmod=0o640
    )
