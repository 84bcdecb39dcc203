"""Whether this process is alive, ready, started, and when it should be replaced.

Probes read it, the server obeys it; where another server runs the application, the probes alone
bring about the drain and the replacement. A watch in the event loop looks at what can go wrong
slowly: memory, engine threads that hang, a queue that nothing is taken from, a loop held up.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from mmllm.serve import metrics as metrics_lib
from mmllm.serve import settings as settings_lib

TICK_S = 0.25
MAX_LAG_S = 2.0  # of the event loop; a balancer does better with another process then
MB = 1_000_000

Check = Callable[[], str | None]
"""Says what is wrong, or None."""

log = logging.getLogger(__name__)


class Report(NamedTuple):
    """An answer to a probe, and why it is no."""

    ok: bool
    reasons: tuple[str, ...] = ()


class Health:
    """What probes are told.

    Args:
      settings: `max_rss_mb`, and `drain_s`, after which a process over it is not alive.
      metrics: told of readiness, the drain and the memory.

    Attributes:
      must_exit: this process should drain and be replaced.
    """

    def __init__(self, settings: settings_lib.Settings, metrics: metrics_lib.Metrics) -> None:
        self._max_bytes = None if settings.max_rss_mb is None else settings.max_rss_mb * MB
        self._drain_s, self._metrics = settings.drain_s, metrics
        self._fatal_checks: list[Check] = []
        self._checks: list[Check] = []
        self._each_tick: list[Callable[[], None]] = []
        self._fatal: str | None = None
        self._over_memory: str | None = None
        self._over_memory_since = 0.0
        self._lag_s = 0.0
        self._started = self._draining = False
        self._task: asyncio.Task[None] | None = None
        self._reported: Report | None = None
        self.must_exit = False

    def watch(self, check: Check, *, fatal: bool = False) -> None:
        """Adds a check: while it says something, the process is not ready.

        Args:
          check: called four times a second and by each probe; quick.
          fatal: what it says does not pass, so the process should be replaced.
        """
        (self._fatal_checks if fatal else self._checks).append(check)

    def each_tick(self, call: Callable[[], None]) -> None:
        """Adds what is called four times a second, such as a measurement."""
        self._each_tick.append(call)

    def start(self) -> None:
        """Begins to watch, in the running event loop."""
        self._task = asyncio.create_task(self._watch(), name="health")

    def started(self) -> None:
        """The model is warm: requests may come."""
        self._started = True
        self._report()

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining

    def drain(self) -> None:
        """No further requests should be sent here; those that come are still answered."""
        self._draining = True
        self._metrics.draining(True)
        self._report()

    def live(self) -> Report:
        """Whether the process works at all; if not, only a restart helps."""
        self._check_fatal()
        return Report(self._fatal is None, () if self._fatal is None else (self._fatal,))

    def startup(self) -> Report:
        """Whether the model is warm."""
        return Report(self._started, () if self._started else ("the model is not warm yet",))

    def ready(self) -> Report:
        """Whether requests should be sent here now."""
        reasons = [*self.live().reasons, *self.startup().reasons]
        if self._draining:
            reasons.append("draining")
        if self._over_memory is not None and self._over_memory not in reasons:
            reasons.append(self._over_memory)
        if self._lag_s > MAX_LAG_S:
            reasons.append(f"the event loop was held up for {self._lag_s:.1f} s")
        if self._started:
            reasons += [reason for check in self._checks if (reason := check()) is not None]
        return Report(not reasons, tuple(reasons))

    async def close(self) -> None:
        """Ends the watch."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _check_fatal(self) -> None:
        """Finds out whether something is wrong for good; it stays so."""
        drained_s = self._over_memory_since + self._drain_s
        if self._over_memory is not None and time.monotonic() > drained_s:
            self._fatal = self._fatal or self._over_memory  # what was accepted has been answered
        for check in [] if self._fatal else self._fatal_checks:
            if (reason := check()) is not None:
                self._fatal, self.must_exit = reason, True
                log.critical("this process should be replaced: %s", reason)
                return

    def _report(self) -> None:
        report = self.ready()
        self._metrics.ready(report.ok)
        if report != self._reported:
            level = logging.INFO if report.ok or self._reported is None else logging.WARNING
            log.log(level, "ready: %s", "; ".join(report.reasons) or "yes")
        self._reported = report

    def _measure_memory(self) -> None:
        size = self._metrics.resident_bytes()
        if self._max_bytes is not None and size > self._max_bytes and not self.must_exit:
            max_mb = self._max_bytes // MB
            self._over_memory = f"{size // MB} MB of memory are more than max_rss_mb={max_mb}"
            self._over_memory_since, self.must_exit = time.monotonic(), True
            log.critical("%s: this process drains and ends", self._over_memory)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            self._lag_s = max(0.0, loop.time() - due)
            try:
                self._measure_memory()
                for call in self._each_tick:
                    call()
                self._report()
            except Exception:  # a watch that ends would watch nothing
                log.exception("the watch failed once")
