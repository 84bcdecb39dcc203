"""A supervised service without a model: `python -m tests.serve.toy_service COUNT MODE`.

Each worker answers a connection with its process number. MODE says how the workers fail.
"""

import multiprocessing
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from mmllm.serve import process, supervisor

WAIT_S = 10.0
BOUNDS = supervisor.Bounds(start_s=30.0, hang_s=2.0, stop_s=1.0)


def work(listener: socket.socket, mode: str, share: process.Share) -> None:
    """Answers one connection after another; "hang" in it stops the beat."""
    if mode == "fail":
        sys.exit(1)
    stopped, beats = threading.Event(), True
    signal.signal(signal.SIGTERM, lambda *_: mode != "deaf" and stopped.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    listener.settimeout(0.05)
    while not stopped.is_set() and process.is_supervised():
        if beats:
            share.beat(0)
        try:
            client = listener.accept()[0]
        except TimeoutError:
            continue
        with client:
            client.settimeout(WAIT_S)
            beats &= client.recv(16) != b"hang"
            client.sendall(str(os.getpid()).encode())


def main() -> int:
    """Serves until a signal; prints the port first."""
    count, mode = int(sys.argv[1]), sys.argv[2]
    context = multiprocessing.get_context("spawn")
    with process.listen("127.0.0.1", 0) as listener, supervisor.metrics_folder() as folder:
        print(listener.getsockname()[1], flush=True)
        print(Path(folder).is_dir(), flush=True)
        start = supervisor.starter(context, work, (listener, mode), count)
        return supervisor.Supervisor(start, count, BOUNDS).run()


if __name__ == "__main__":
    sys.exit(main())
