"""A supervised service without a model: `python -m tests.serve.toy_service COUNT MODE`.

Each worker answers a connection with its process number. MODE says how the workers fail: "fail"
at once, "deaf" to SIGTERM, "slow" to end after they closed the socket, "crowded" by a system that
for a while has no room for another process.
"""

import errno
import itertools
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mmllm.serve.process import coordination, supervisor

WAIT_S = 10.0
CROWDED = range(2, 5)  # of the starts: after those of the first two workers
BOUNDS = supervisor.Bounds(
    start_s=30.0, hang_s=4.0, stop_s=WAIT_S, back_off_s=(0.0, 0.05, 0.1, 0.15)
)


def work(listener: socket.socket, mode: str, share: coordination.SharedState) -> None:
    """Answers one connection after another; "hang" stops the beat, "replace" asks for that.

    A worker that asked prints whether another serves when it is told to end.
    """
    if mode == "fail":
        sys.exit(1)
    stopped, beats = threading.Event(), True
    signal.signal(signal.SIGTERM, lambda *_: mode != "deaf" and stopped.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    listener.settimeout(0.05)
    while not stopped.is_set() and coordination.is_supervised():
        if beats:
            share.beat(0)
        try:
            client = listener.accept()[0]
        except TimeoutError:
            continue
        with client:
            client.settimeout(WAIT_S)
            command = client.recv(16)
            beats &= command != b"hang"
            if command == b"replace":
                share.ask_for_replacement()
            client.sendall(str(os.getpid()).encode())
    listener.close()
    if share.wants_replacement:
        print("relieved" if share.should_yield(1) else "alone", flush=True)
    if mode == "slow":
        time.sleep(2 * WAIT_S)


def crowded(
    start: Callable[[], supervisor.Worker], times: range
) -> Callable[[], supervisor.Worker]:
    """Lets the starts whose numbers are in `times` fail as they do where no process fits."""
    numbers = itertools.count()

    def refused() -> supervisor.Worker:
        if next(numbers) in times:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return start()

    return refused


def main() -> int:
    """Serves until a signal; prints the port first."""
    count, mode = int(sys.argv[1]), sys.argv[2]
    context = multiprocessing.get_context("spawn")
    with coordination.listen("127.0.0.1", 0) as listener, supervisor.metrics_folder() as folder:
        print(listener.getsockname()[1], flush=True)
        print(Path(folder).is_dir(), flush=True)
        start = supervisor.starter(context, work, (listener, mode), count)
        if mode == "crowded":
            start = crowded(start, CROWDED)
        bounds = BOUNDS._replace(stop_s=1.0) if mode == "deaf" else BOUNDS
        return supervisor.Supervisor(start, count, bounds, refuse=listener.close).run()


if __name__ == "__main__":
    sys.exit(main())
