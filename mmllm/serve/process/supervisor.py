"""Several processes behind one socket: starts them, replaces what dies or hangs, drains all.

`mmllm serve --workers N` -> here -> N times `server`. uvicorn's own supervisor restarts without a
pause and takes EXIT_RESTART for a failed start, and so is not used. The socket belongs to this
process: connections that wait for a killed worker go to the others. A worker that asks to be
replaced (its memory grew) goes on until its replacement serves, one worker after another.
"""

import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple

from mmllm.serve import settings as settings_lib
from mmllm.serve.process import coordination

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
START_S = 120.0  # from start to the first beat; loading takes seconds, on a busy machine more
HANG_S = 30.0  # without a beat; the event loop beats ten times a second
BACK_OFF_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
HEALTHY_S = 60.0  # a worker that lived so long starts the back-off anew
MAX_FAILED_STARTS = 5  # in a row, in every slot: the service cannot start any more
TICK_S = 0.1

Target = Callable[..., None]


class Bounds(NamedTuple):
    """Seconds the supervisor waits for a worker, and between one and the next."""

    start_s: float = START_S
    hang_s: float = HANG_S
    stop_s: float = 60.0
    back_off_s: tuple[float, ...] = BACK_OFF_S


class Worker:
    """One process in one slot of the service.

    Args:
      context: of multiprocessing.
      target: what the process runs.
      arguments: of the target.
      share: its slot in the shared memory, the last argument of the target.
      leave: to be called when it is no more.
    """

    def __init__(
        self,
        context: Any,
        target: Target,
        arguments: tuple[Any, ...],
        share: coordination.SharedState,
        leave: Callable[[], None],
    ) -> None:
        self._share, self._leave, self._has_served = share, leave, False
        self.killed = False
        self.started_s = time.monotonic()
        self.stopping_s: float | None = None
        self.process: SpawnProcess = context.Process(target=target, args=(*arguments, share))
        self.process.start()

    @property
    def is_serving(self) -> bool:
        """Whether it has beaten at least once, and is to go on."""
        return bool(self._share.last_beat_s) and self.stopping_s is None and self.process.is_alive()

    @property
    def has_served(self) -> bool:
        """Whether it ever accepted requests; known also when it is no more."""
        self._has_served |= bool(self._share.last_beat_s)
        return self._has_served

    @property
    def wants_replacement(self) -> bool:
        """Whether it asked to be replaced."""
        return self._share.wants_replacement

    def release(self) -> None:
        """Gives away what it had; it has ended."""
        self.process.join()
        self._has_served = self.has_served  # before its slot in the memory is another's
        self._leave()

    def hangs(self, bounds: Bounds) -> bool:
        """Whether it lives over one of its bounds, and was not yet killed for it."""
        now = time.monotonic()
        if self.killed or not self.process.is_alive():
            return False
        if self.stopping_s is not None:  # a drain may stop the beat early: its own bound counts
            return now - self.stopping_s > bounds.stop_s
        if not self._share.last_beat_s:
            return now - self.started_s > bounds.start_s
        return now - self._share.last_beat_s > bounds.hang_s

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Asks it to drain and end."""
        if self.stopping_s is None:
            self.stopping_s = time.monotonic()
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, number)


class Slot:
    """One of the N slots: who works there, and who is to take over.

    Attributes:
      worker: serves, starts, or is None.
      replacement: takes over from the worker once it serves.
      ends: of workers, in a row, none of which lived for HEALTHY_S.
      failed_starts: in a row; of workers that never served.
      next_s: when the next worker may start.
    """

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.replacement: Worker | None = None
        self.ends = self.failed_starts = 0
        self.next_s = 0.0

    def back_off(self, has_served: bool, lived_s: float, back_off_s: tuple[float, ...]) -> float:
        """Counts the end of a worker; the seconds until the next one starts.

        One crash of a worker that served is answered at once, a series ever later.
        """
        self.ends = 1 if has_served and lived_s > HEALTHY_S else self.ends + 1
        self.failed_starts = 0 if has_served else self.failed_starts + 1
        pause_s = back_off_s[min(self.ends - int(has_served), len(back_off_s) - 1)]
        self.next_s = time.monotonic() + pause_s
        return pause_s


class Supervisor:
    """Keeps N workers running until a signal.

    Args:
      make: starts a worker.
      count: of workers.
      bounds: how long it waits for one.
      report: prints one line; to standard error unless given.
      refuse: closes the supervisor's copy of the socket; the workers close theirs in the drain.
    """

    def __init__(
        self,
        make: Callable[[], Worker],
        count: int,
        bounds: Bounds | None = None,
        report: Callable[[str], None] | None = None,
        refuse: Callable[[], None] = lambda: None,
    ) -> None:
        self._make, self._bounds, self._report = make, bounds or Bounds(), report or _print
        self._refuse = refuse
        self._slots = [Slot() for _ in range(count)]
        self._draining: list[Worker] = []
        self._to_replace: list[Slot] = []
        self._signals: list[int] = []
        self._has_served = False

    def run(self) -> int:
        """Runs until SIGTERM or SIGINT; SIGHUP replaces the workers one by one.

        Returns:
          EXIT_OK after a drain, EXIT_START when no worker can start, EXIT_STUCK when one had to be
          killed while stopping.
        """
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {n: signal.signal(n, lambda n, _: self._signals.append(n)) for n in numbers}
        code = coordination.EXIT_OK
        try:
            while not self._is_over():
                if not self._tick():
                    code = coordination.EXIT_START
                    break
                time.sleep(TICK_S)
        finally:
            clean = self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)
        return code if code or clean else coordination.EXIT_STUCK

    def _is_over(self) -> bool:
        while self._signals:
            if self._signals.pop(0) != signal.SIGHUP:
                return True
            # Those whose replacement is already starting come first: none is started in vain.
            self._to_replace = sorted(self._slots, key=lambda slot: slot.replacement is None)
        return False

    def _tick(self) -> bool:
        """One round; False when the service cannot start."""
        for slot in self._slots:
            if slot.worker is not None and not self._is_alive(slot.worker):
                self._count(slot, slot.worker)
                slot.worker = None
            # A worker died while its replacement was starting: that one takes over as it is.
            if slot.worker is None and slot.replacement is not None:
                slot.worker, slot.replacement = slot.replacement, None
                self._to_replace = [other for other in self._to_replace if other is not slot]
            if slot.worker is None and time.monotonic() >= slot.next_s:
                slot.worker = self._start(slot)
            if slot.worker is not None and slot.worker.has_served:
                self._has_served, slot.failed_starts = True, 0
                if slot.worker.wants_replacement and slot not in self._to_replace:
                    self._to_replace.append(slot)
                    self._report(f"mmllm: worker {slot.worker.process.pid} asks to be replaced")
        self._replace_next()
        self._draining = [worker for worker in self._draining if self._is_alive(worker)]
        # A first start that fails would fail again; later the cause may pass. Workers that served
        # prove that one can start: whatever ends them, others follow.
        limit = MAX_FAILED_STARTS if self._has_served else 1
        if any(slot.failed_starts < limit for slot in self._slots):
            return True
        self._report("mmllm: no worker can start: stopping")
        return False

    def _start(self, slot: Slot) -> Worker | None:
        """A new worker; None, and a failed start, when the system has no room for one."""
        try:
            return self._make()
        except OSError as error:
            pause_s = slot.back_off(False, 0.0, self._bounds.back_off_s)
            reason = error.strerror or type(error).__name__
            self._report(
                f"mmllm: no worker could be started ({reason}); the next try is in {pause_s:g} s"
            )
            return None

    def _count(self, slot: Slot, worker: Worker) -> None:
        self._has_served |= worker.has_served
        lived_s = time.monotonic() - worker.started_s
        pause_s = slot.back_off(worker.has_served, lived_s, self._bounds.back_off_s)
        code = worker.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"code {code}"
        self._report(
            f"mmllm: worker {worker.process.pid} ended with {how}; "
            f"the next one starts in {pause_s:g} s"
        )

    def _replace_next(self) -> None:
        """A rolling restart: the next slot's replacement starts, serves, and takes over."""
        # One at a time, and memory for at most twice the workers, those that drain included.
        if not self._to_replace or len(self._draining) >= len(self._slots):
            return
        slot = self._to_replace[0]
        if slot.worker is None:  # the next one will be new anyway
            self._to_replace.pop(0)
        elif slot.replacement is None:
            if time.monotonic() >= slot.next_s:
                slot.replacement = self._start(slot)
        elif slot.replacement.is_serving:
            slot.worker.stop()  # only now, so that the slot is never empty
            self._draining.append(slot.worker)
            slot.worker, slot.replacement, slot.ends = slot.replacement, None, 0
            self._to_replace.pop(0)
        elif not self._is_alive(slot.replacement):
            pause_s = slot.back_off(slot.replacement.has_served, 0.0, self._bounds.back_off_s)
            slot.replacement, self._to_replace = None, []
            self._report(
                "mmllm: the new worker did not start: the old ones go on; "
                f"one that asks is replaced in {pause_s:g} s"
            )

    def _is_alive(self, worker: Worker) -> bool:
        if worker.hangs(self._bounds):
            self._kill(worker, "does not answer")
        if worker.process.is_alive():
            return True
        worker.release()
        _drop_gauges(worker.process.pid)
        return False

    def _kill(self, worker: Worker, why: str) -> None:
        """Its end is seen, and counted, when it is next looked at."""
        worker.killed = True
        worker.process.kill()
        self._report(f"mmllm: worker {worker.process.pid} {why}: killed")

    def _stop(self) -> bool:
        """Drains every worker; whether none had to be killed. A second signal kills."""
        everyone = [w for p in self._slots for w in (p.worker, p.replacement) if w] + self._draining
        for worker in everyone:
            worker.stop()
        self._refuse()
        left = everyone
        while left:
            impatient = any(number != signal.SIGHUP for number in self._signals)
            for worker in left:
                if impatient and not worker.killed and worker.process.is_alive():
                    self._kill(worker, "is not waited for")
            left = [worker for worker in left if self._is_alive(worker)]
            time.sleep(TICK_S / 2)
        return not any(worker.killed for worker in everyone)


def starter(
    context: Any, target: Target, arguments: tuple[Any, ...], count: int
) -> Callable[[], Worker]:
    """What starts one of `count` workers, with a slot in the memory that they share."""
    slots = 2 * count + 1  # those who serve, those who leave, and a replacement
    beats = context.Array("d", slots, lock=False)
    connections = context.Array("i", [-1] * slots, lock=False)
    requests = context.Array("b", slots, lock=False)
    free = list(range(slots))

    def start() -> Worker:
        slot = free.pop(0)
        share = coordination.SharedState(beats, connections, requests, slot)
        share.clear()

        def leave() -> None:
            share.clear()
            free.append(slot)

        try:
            return Worker(context, target, arguments, share, leave)
        except OSError:  # no memory, or no process more
            leave()
            raise

    return start


def run(settings: settings_lib.Settings, announce: Callable[[str], None]) -> int:
    """Serves with `settings.workers` processes.

    Args:
      settings: of the service.
      announce: told the URL once the socket listens.

    Returns:
      The exit code.

    Raises:
      ValueError: an address or port that cannot be listened on.
    """
    context = multiprocessing.get_context("spawn")
    bounds = Bounds(stop_s=settings.drain_s + 3 * coordination.GRACE_S)
    with coordination.listen(settings.host, settings.port) as listener, metrics_folder():
        announce(coordination.address(listener))
        start = starter(context, _work, (settings, listener), settings.workers)
        return Supervisor(start, settings.workers, bounds, refuse=listener.close).run()


@contextmanager
def metrics_folder() -> Iterator[Path]:
    """An empty folder in which the workers add up their metrics, named in the environment."""
    given = os.environ.get(MULTIPROCESS_VARIABLE)
    folder = Path(given or tempfile.mkdtemp(prefix="mmllm-metrics-"))
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.db"):  # of an earlier run, whose counts are not this one's
        left.unlink(missing_ok=True)
    os.environ[MULTIPROCESS_VARIABLE] = str(folder)
    try:
        yield folder
    finally:
        if given is None:
            os.environ.pop(MULTIPROCESS_VARIABLE, None)
            shutil.rmtree(folder, ignore_errors=True)


def _print(line: str) -> None:
    with suppress(OSError):  # the service outlives the terminal that it was started from
        print(line, file=sys.stderr, flush=True)


def _drop_gauges(number: int | None) -> None:
    """Removes the gauges of a process that is no more."""
    if number is not None and os.environ.get(MULTIPROCESS_VARIABLE):
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(number)


def _work(
    settings: settings_lib.Settings, listener: socket.socket, share: coordination.SharedState
) -> None:
    """A worker's whole life."""
    from mmllm.serve.process import server  # heavy: this process needs it, the supervisor does not

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # of the supervisor's terminal
    sys.exit(server.run(settings, listener, share))
