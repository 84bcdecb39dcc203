"""A service in a process of its own, for experiments: started, queried, hurt, and always ended."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from experiments.rows import Row
from mmllm import bundle
from mmllm.runtime import model

START_S = 120.0
END_S = 60.0
UNLIMITED = {"MMLLM_RATE_PER_ADDRESS": "1000000/second", "MMLLM_RATE_PER_KEY": "1000000/second"}


class Service:
    """A running service.

    Args:
      process: it.
      url: where it answers.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", url: str) -> None:
        self.process, self.url = process, url

    def get(self, path: str, timeout: float = 5.0) -> tuple[int, str]:
        """Status and text; 0 if there was no answer."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=timeout) as answer:  # nosec B310
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def processes(self) -> list[psutil.Process]:
        """Itself, and the workers below it that serve."""
        me = psutil.Process(self.process.pid)
        workers = []
        for child in me.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()):
                    workers.append(child)
        return [me, *workers]

    def resident_bytes(self) -> int:
        """Resident memory of all its processes."""
        total = 0
        for process in self.processes():
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and waits; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(END_S)


def shipped(name: str = "") -> Row:
    """A row about the bundle that ships, by its own name unless another is given."""
    manifest, config = bundle.open_verified(model.locate("nano"))
    return Row(name=name or manifest["name"], config=config)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(
    command: Sequence[str],
    port: int,
    ready: str = "/healthz/ready",
    out: IO[bytes] | None = None,
    **variables: str,
) -> Iterator[Service]:
    """Starts a command that will answer `ready` on a port, and ends it.

    Raises:
      RuntimeError: it ended, or is not ready within START_S; the message has the end of its stderr.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        environment = {**os.environ, "MMLLM_DATA": folder, **UNLIMITED, **variables}
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=Path(__file__).parents[2],
            stdout=out or subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        service = Service(process, f"http://127.0.0.1:{port}")
        try:
            wait_until(lambda: process.poll() is not None or service.get(ready)[0] == 200)
            if process.poll() is not None or service.get(ready)[0] != 200:
                errors.seek(0)
                raise RuntimeError(f"did not start: {errors.read().decode()[-2000:]}")
            yield service
        finally:
            service.end()
            with contextlib.suppress(ProcessLookupError):  # what it left behind, if anything
                os.killpg(process.pid, signal.SIGKILL)


def mmllm(
    *arguments: str, out: IO[bytes] | None = None, port: int | None = None, **variables: str
) -> Any:
    """Runs `mmllm serve` with these arguments and variables; see `running`."""
    port = port or free_port()
    command = [sys.executable, "-m", "mmllm", "serve", "--port", str(port), *arguments]
    return running(command, port, out=out, **variables)


def wait_until(ready: Any, max_s: float = START_S, pause_s: float = 0.05) -> float:
    """Seconds until something holds, at most `max_s`."""
    start = time.perf_counter()
    while not ready() and time.perf_counter() - start < max_s:
        time.sleep(pause_s)
    return time.perf_counter() - start


def load(url: str, task: str, seconds: float, **options: float) -> dict[str, Any]:
    """What `experiments.serving.load_generator` measures in a process of its own."""
    given = [f"--{name}={value}" for name, value in options.items()]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.serving.load_generator", url, "--task", task]
        + [f"--seconds={seconds}", *given],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=seconds + START_S,
    )
    if done.returncode:
        raise RuntimeError(f"the load failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout)
