"""What the service counts and times, in Prometheus' terms: the one list of names and labels.

Middleware, pool, batchers, cache and limits call the methods below; `/metrics` serves `expose`.
Each label takes its values from a list in this file or from the configuration: nothing a client
sends becomes a series. With several processes, PROMETHEUS_MULTIPROC_DIR must name an empty folder
before this module is imported; then any process answers for all of them.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import prometheus_client
import psutil
from prometheus_client import mmap_dict, multiprocess

from mmllm.runtime.engines import registry

TASKS = ("caption", "ocr", "vqa", "embed_image", "embed_text", "search", "index", "stream")
QUEUES = (*TASKS, "decode", "page")  # what has a queue of its own; "page" decodes for "ocr"
STAGES = ("decode", "queue", "engine", "total")
ENGINES = tuple(registry.ENGINES)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
CACHE_RESULTS = ("hit", "miss", "joined", "error")
LIMITED_BY = ("key", "address")
STORES = ("limits", "cache", "index")
BREAKER_STATES = {"closed": 0, "half-open": 1, "half-opened": 1, "open": 2, "opened": 2}
OTHER = "other"
MAX_VALUES = 200  # of routes, problem codes and models, whose lists stand elsewhere

REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0)
STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
SIZE_BUCKETS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0)

Mode = Literal["livesum", "livemax"]
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
MERGED_KINDS = ("counter", "histogram")  # gauges count for the living: the supervisor removes them
ENDED = "ended"  # stands where other files have the process
LOCK_S = 5.0

prometheus_client.disable_created_metrics()  # a second series for each one


class Metrics:
    """Counts and times of one process.

    Args:
      registry: where the metrics live; one of its own by default.
    """

    def __init__(self, registry: prometheus_client.CollectorRegistry | None = None) -> None:
        self.registry = registry or prometheus_client.CollectorRegistry()
        self._seen: dict[str, set[str]] = {}
        self._model: tuple[str, str, str] | None = None
        self._requests_metrics()
        self._work_metrics()
        self._state_metrics()

    def _requests_metrics(self) -> None:
        self._request = self._histogram(
            "request_seconds",
            "From the first byte of a request to the last of its answer.",
            ("route", "method", "status"),
            REQUEST_BUCKETS,
        )
        self._in_flight = self._gauge("requests_in_flight", "Requests being answered.")
        self._problems = self._counter("problems", "Error answers by problem code.", ("code",))
        self._limited = self._counter("rate_limited", "Requests over a rate limit.", ("by",))
        self._store_errors = self._counter(
            "store_errors", "Times a store was left out because it did not answer.", ("store",)
        )

    def _work_metrics(self) -> None:
        self._stage = self._histogram(
            "stage_seconds", "Time in each stage of a task.", ("task", "stage"), STAGE_BUCKETS
        )
        self._batch = self._histogram("batch_size", "Items in a batch.", ("task",), SIZE_BUCKETS)
        self._cache = self._counter("cache", "Look-ups by result.", ("task", "result"))
        self._fallback = self._counter(
            "fallback_answers", "Answers of another engine than the chosen one.", ("task", "engine")
        )
        self._tokens = self._counter("tokens_generated", "Tokens decoded.", ("task",))
        self._shed = self._counter("items_dropped", "Items dropped before they ran.", ("task",))

    def _state_metrics(self) -> None:
        self._depth = self._gauge("queue_depth", "Items that wait for a batch.", ("task",))
        self._breaker = self._gauge(
            "breaker_state", "0 closed, 1 half-open, 2 open.", ("engine",), "livemax"
        )
        self._stuck = self._counter("stuck_threads", "Worker threads given up.", ("engine",))
        self._reloads = self._counter("reloads", "Model reloads by result.", ("result",))
        self._rss = self._gauge("resident_memory_bytes", "Resident memory of all processes.")
        self._info = self._gauge(
            "model_info",
            "1 for the model that answers.",
            ("name", "fingerprint", "engine"),
            "livemax",
        )
        self._ready = self._gauge("ready_processes", "Processes that take requests.")
        self._draining = self._gauge("draining_processes", "Processes that take no more.")
        self._log_dropped = self._counter("log_lines_dropped", "Log lines that were not written.")

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts an answered request.

        Args:
          route: template ("/v1/index/{id}"), never the path as sent.
          method: of the request; an unknown one counts as "other".
          status: of the answer; 0 when the client left before it.
          seconds: from start to end.
        """
        kind = f"{status // 100}xx" if 100 <= status < 600 else "gone"
        labels = self._bounded("route", route), _among(method, METHODS), kind
        self._request.labels(*labels).observe(seconds)

    def in_flight(self, change: int) -> None:
        """A request begins (1) or ends (-1)."""
        self._in_flight.inc(change)

    def problem(self, code: str) -> None:
        """Counts an error answer."""
        self._problems.labels(self._bounded("code", code)).inc()

    def rate_limited(self, by: str) -> None:
        """Counts a refusal; `by` is "key" or "address"."""
        self._limited.labels(_among(by, LIMITED_BY)).inc()

    def store_error(self, store: str) -> None:
        """Counts an answer made without a store ("limits", "cache", "index") that failed."""
        self._store_errors.labels(_among(store, STORES)).inc()

    def stage(self, task: str, stage: str, seconds: float) -> None:
        """Times a stage: "decode", "queue", "engine" or "total"."""
        self._stage.labels(_among(task, TASKS), _among(stage, STAGES)).observe(seconds)

    def queue_wait(self, task: str, seconds: float) -> None:
        """Times the wait of an item for its batch; `task` is one of QUEUES."""
        self._stage.labels(_among(task, QUEUES), "queue").observe(seconds)

    def queue_depth(self, task: str, items: int) -> None:
        """Says how many items wait in the queue of one of QUEUES."""
        self._depth.labels(_among(task, QUEUES)).set(items)

    def batch_size(self, task: str, items: int) -> None:
        """Counts a batch."""
        self._batch.labels(_among(task, TASKS)).observe(items)

    def items_dropped(self, task: str, items: int = 1) -> None:
        """Counts items that expired or were cancelled before they ran."""
        self._shed.labels(_among(task, QUEUES)).inc(items)

    def cache(self, task: str, result: str) -> None:
        """Counts a look-up: "hit", "miss", "joined" (another request made it) or "error"."""
        self._cache.labels(_among(task, TASKS), _among(result, CACHE_RESULTS)).inc()

    def fallback(self, task: str, engine: str) -> None:
        """Counts an answer by an engine that is not the chosen one."""
        self._fallback.labels(_among(task, TASKS), _among(engine, ENGINES)).inc()

    def tokens(self, task: str, count: int) -> None:
        """Counts decoded tokens."""
        self._tokens.labels(_among(task, TASKS)).inc(count)

    def breaker(self, engine: str, state: str) -> None:
        """Says how an engine's breaker stands: a key of BREAKER_STATES."""
        self._breaker.labels(_among(engine, ENGINES)).set(BREAKER_STATES[state])

    def stuck_thread(self, engine: str) -> None:
        """Counts a worker thread that was given up."""
        self._stuck.labels(_among(engine, ENGINES)).inc()

    def reload(self, ok: bool) -> None:
        """Counts a model reload."""
        self._reloads.labels("ok" if ok else "failed").inc()

    def model(self, name: str, fingerprint: str, engine: str) -> None:
        """Says which model answers from now on; the one before it no longer counts."""
        labels = (self._bounded("name", name), self._bounded("print", fingerprint[:12]), engine)
        if self._model is not None and self._model != labels:
            self._info.labels(*self._model).set(0)  # several processes know no removal
        self._info.labels(*labels).set(1)
        self._model = labels

    def ready(self, ready: bool) -> None:
        """Says whether this process takes requests."""
        self._ready.set(int(ready))

    def draining(self, draining: bool) -> None:
        """Says whether this process finishes what it has and takes no more."""
        self._draining.set(int(draining))

    def log_dropped(self, lines: int = 1) -> None:
        """Counts log lines that could not be written."""
        self._log_dropped.inc(lines)

    def resident_bytes(self) -> int:
        """Measures this process's resident memory and notes it."""
        size = psutil.Process().memory_info().rss
        self._rss.set(size)
        return size

    def expose(self) -> tuple[bytes, str]:
        """The text that Prometheus scrapes and its content type; it may wait: call it in a thread.

        Raises:
          TimeoutError: another process has been at it for too long.
        """
        self.resident_bytes()
        folder = os.environ.get(FOLDER_VARIABLE)
        if folder:
            text = _exposed_by_all(Path(folder))
        else:
            text = prometheus_client.generate_latest(self.registry)
        return text, prometheus_client.CONTENT_TYPE_LATEST

    def _bounded(self, label: str, value: str) -> str:
        """A value, or "other" once a label has had MAX_VALUES."""
        seen = self._seen.setdefault(label, set())
        if value not in seen and len(seen) >= MAX_VALUES:
            return OTHER
        seen.add(value)
        return value

    def _counter(
        self, name: str, about: str, labels: Iterable[str] = ()
    ) -> prometheus_client.Counter:
        return prometheus_client.Counter(f"mmllm_{name}", about, labels, registry=self.registry)

    def _gauge(
        self, name: str, about: str, labels: Iterable[str] = (), mode: Mode = "livesum"
    ) -> prometheus_client.Gauge:
        return prometheus_client.Gauge(
            f"mmllm_{name}", about, labels, registry=self.registry, multiprocess_mode=mode
        )

    def _histogram(
        self, name: str, about: str, labels: Iterable[str], buckets: tuple[float, ...]
    ) -> prometheus_client.Histogram:
        return prometheus_client.Histogram(
            f"mmllm_{name}", about, labels, registry=self.registry, buckets=buckets
        )


def _among(value: str, values: Iterable[str]) -> str:
    return value if value in values else OTHER


def _exposed_by_all(folder: Path) -> bytes:
    """What `expose` gives where several processes keep their files in one folder.

    Each process has a file of each kind of metric. Those of all that ever ended would be read again
    at each scrape, so their counts are merged into one file first, by one process at a time: none
    may count what moves twice.
    """
    with _locked(folder):
        _merge_ended(folder)
        registry = prometheus_client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, str(folder))
        return prometheus_client.generate_latest(registry)


def _merge_ended(folder: Path) -> None:
    """Adds the counts of ended processes to one file a kind."""
    for kind in MERGED_KINDS:
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
def _locked(folder: Path) -> Iterator[None]:
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
