"""Several processes behind one socket: starts them, replaces what dies or hangs, drains all.

`mmllm serve --workers N` -> here -> N times `mmllm.serve.server`. uvicorn's own supervisor restarts
without a pause and takes EXIT_RESTART for a failed start, and so is not used. The socket belongs to
this process: connections that wait for a killed worker go to the others. A worker that asks to be
replaced (its memory grew) goes on until its heir serves, one worker after another.
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

from mmllm.serve import process
from mmllm.serve import settings as settings_lib

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
START_S = 120.0  # from start to the first beat; loading takes seconds, on a busy machine more
HANG_S = 30.0  # without a beat; the event loop beats ten times a second
BACK_OFF_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
HEALTHY_S = 60.0  # a worker that lived so long starts the back-off anew
MOST_FAILED_STARTS = 5  # in a row, in every place: the service cannot start any more
TICK_S = 0.1

Target = Callable[..., None]


class Bounds(NamedTuple):
    """Seconds the supervisor waits for a worker, and between one and the next."""

    start_s: float = START_S
    hang_s: float = HANG_S
    stop_s: float = 60.0
    back_off_s: tuple[float, ...] = BACK_OFF_S


class Worker:
    """One process in one place of the service.

    Args:
      context: of multiprocessing.
      target: what the process runs.
      arguments: of the target.
      share: its place among the processes, the last argument of the target.
      leave: to be called when it is no more.
    """

    def __init__(
        self,
        context: Any,
        target: Target,
        arguments: tuple[Any, ...],
        share: process.Share,
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
        return bool(self._share.beaten_s) and self.stopping_s is None and self.process.is_alive()

    @property
    def has_served(self) -> bool:
        """Whether it ever accepted requests; known also when it is no more."""
        self._has_served |= bool(self._share.beaten_s)
        return self._has_served

    @property
    def wants_heir(self) -> bool:
        """Whether it asked to be replaced."""
        return self._share.wants_heir

    def bury(self) -> None:
        """Gives away what it had; it has ended."""
        self.process.join()
        self._has_served = self.has_served  # before its place in the memory is another's
        self._leave()

    def hangs(self, bounds: Bounds) -> bool:
        """Whether it lives over one of its bounds, and was not yet killed for it."""
        now = time.monotonic()
        if self.killed or not self.process.is_alive():
            return False
        if self.stopping_s is not None:
            return now - self.stopping_s > bounds.stop_s
        if not self._share.beaten_s:
            return now - self.started_s > bounds.start_s
        return now - self._share.beaten_s > bounds.hang_s

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Asks it to drain and end."""
        if self.stopping_s is None:
            self.stopping_s = time.monotonic()
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, number)


class Place:
    """One of the N places: who works there, and who is to take over.

    Attributes:
      worker: serves, starts, or is None.
      heir: takes over from the worker once it serves.
      ends: of workers, in a row, none of which lived for HEALTHY_S.
      failed_starts: in a row; of workers that never served.
      next_s: when the next worker may start.
    """

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.heir: Worker | None = None
        self.ends = self.failed_starts = 0
        self.next_s = 0.0

    def pause(self, has_served: bool, lived_s: float, back_off_s: tuple[float, ...]) -> float:
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
        self._make, self._bounds, self._report = make, bounds or Bounds(), report or _say
        self._refuse = refuse
        self._places = [Place() for _ in range(count)]
        self._leaving: list[Worker] = []
        self._renewing: list[Place] = []
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
        code = process.EXIT_OK
        try:
            while not self._is_over():
                if not self._keep():
                    code = process.EXIT_START
                    break
                time.sleep(TICK_S)
        finally:
            clean = self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)
        return code if code or clean else process.EXIT_STUCK

    def _is_over(self) -> bool:
        while self._signals:
            if self._signals.pop(0) != signal.SIGHUP:
                return True
            self._renewing = sorted(self._places, key=lambda place: place.heir is None)
        return False

    def _keep(self) -> bool:
        """One round; False when the service cannot start."""
        for place in self._places:
            if place.worker is not None and not self._lives(place.worker):
                self._count(place, place.worker)
                place.worker = None
            if place.worker is None and place.heir is not None:
                place.worker, place.heir = place.heir, None
                self._renewing = [other for other in self._renewing if other is not place]
            if place.worker is None and time.monotonic() >= place.next_s:
                place.worker = self._start(place)
            if place.worker is not None and place.worker.has_served:
                self._has_served, place.failed_starts = True, 0
                if place.worker.wants_heir and place not in self._renewing:
                    self._renewing.append(place)
                    self._report(f"mmllm: worker {place.worker.process.pid} asks for an heir")
        self._renew()
        self._leaving = [worker for worker in self._leaving if self._lives(worker)]
        # A first start that fails would fail again; later the cause may pass. Workers that served
        # prove that one can start: whatever ends them, others follow.
        most = MOST_FAILED_STARTS if self._has_served else 1
        if any(place.failed_starts < most for place in self._places):
            return True
        self._report("mmllm: no worker can start: stopping")
        return False

    def _start(self, place: Place) -> Worker | None:
        """A new worker; None, and a failed start, when the system has no room for one."""
        try:
            return self._make()
        except OSError as error:
            pause_s = place.pause(False, 0.0, self._bounds.back_off_s)
            reason = error.strerror or type(error).__name__
            self._report(
                f"mmllm: no worker could be started ({reason}); the next try is in {pause_s:g} s"
            )
            return None

    def _count(self, place: Place, worker: Worker) -> None:
        self._has_served |= worker.has_served
        lived_s = time.monotonic() - worker.started_s
        pause_s = place.pause(worker.has_served, lived_s, self._bounds.back_off_s)
        code = worker.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"code {code}"
        self._report(
            f"mmllm: worker {worker.process.pid} ended with {how}; "
            f"the next one starts in {pause_s:g} s"
        )

    def _renew(self) -> None:
        """A rolling restart: the next place's heir starts, serves, and takes over."""
        if not self._renewing or len(self._leaving) >= len(self._places):
            return
        place = self._renewing[0]
        if place.worker is None:  # the next one will be new anyway
            self._renewing.pop(0)
        elif place.heir is None:
            if time.monotonic() >= place.next_s:
                place.heir = self._start(place)
        elif place.heir.is_serving:
            place.worker.stop()
            self._leaving.append(place.worker)
            place.worker, place.heir, place.ends = place.heir, None, 0
            self._renewing.pop(0)
        elif not self._lives(place.heir):
            pause_s = place.pause(place.heir.has_served, 0.0, self._bounds.back_off_s)
            place.heir, self._renewing = None, []
            self._report(
                "mmllm: the new worker did not start: the old ones go on; "
                f"one that asks is replaced in {pause_s:g} s"
            )

    def _lives(self, worker: Worker) -> bool:
        if worker.hangs(self._bounds):
            self._kill(worker, "does not answer")
        if worker.process.is_alive():
            return True
        worker.bury()
        _forget(worker.process.pid)
        return False

    def _kill(self, worker: Worker, why: str) -> None:
        """Its end is seen, and counted, when it is next looked at."""
        worker.killed = True
        worker.process.kill()
        self._report(f"mmllm: worker {worker.process.pid} {why}: killed")

    def _stop(self) -> bool:
        """Drains every worker; whether none had to be killed. A second signal kills."""
        everyone = [w for p in self._places for w in (p.worker, p.heir) if w] + self._leaving
        for worker in everyone:
            worker.stop()
        self._refuse()
        left = everyone
        while left:
            impatient = any(number != signal.SIGHUP for number in self._signals)
            for worker in left:
                if impatient and not worker.killed and worker.process.is_alive():
                    self._kill(worker, "is not waited for")
            left = [worker for worker in left if self._lives(worker)]
            time.sleep(TICK_S / 2)
        return not any(worker.killed for worker in everyone)


def starter(
    context: Any, target: Target, arguments: tuple[Any, ...], count: int
) -> Callable[[], Worker]:
    """What starts one of `count` workers, with a place in the memory that they share."""
    places = 2 * count + 1  # those who serve, those who leave, and an heir
    beats = context.Array("d", places, lock=False)
    connections = context.Array("i", [-1] * places, lock=False)
    wishes = context.Array("b", places, lock=False)
    free = list(range(places))

    def start() -> Worker:
        place = free.pop(0)
        share = process.Share(beats, connections, wishes, place)
        share.clear()

        def leave() -> None:
            share.clear()
            free.append(place)

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
    bounds = Bounds(stop_s=settings.drain_s + 3 * process.GRACE_S)
    with process.listen(settings.host, settings.port) as listener, metrics_folder():
        announce(process.address(listener))
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


def _say(line: str) -> None:
    with suppress(OSError):  # the service outlives the terminal that it was started from
        print(line, file=sys.stderr, flush=True)


def _forget(number: int | None) -> None:
    """Removes the gauges of a process that is no more."""
    if number is not None and os.environ.get(MULTIPROCESS_VARIABLE):
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(number)


def _work(settings: settings_lib.Settings, listener: socket.socket, share: process.Share) -> None:
    """A worker's whole life."""
    from mmllm.serve import server  # heavy: this process needs it, the supervisor does not

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # of the supervisor's terminal
    sys.exit(server.run(settings, listener, share))
