"""Workers that die, hang or do not start; signals; and that nothing is left behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmllm.serve.process import coordination, supervisor

ROOT = Path(__file__).parents[3]
WAIT_S = 30.0


class Toy:
    """A running `tests.serve.toy_service`."""

    def __init__(self, count: int, mode: str) -> None:
        command = [sys.executable, "-m", "tests.serve.toy_service", str(count), mode]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        assert self.process.stdout.readline() == "True\n"

    def ask(self, what: bytes = b"who") -> int:
        """The process number of the worker that answers."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S) as client:
            client.sendall(what)
            return int(client.recv(16))

    def someone_else(self, *known: int) -> int:
        return until(lambda: next(iter({self.ask()} - set(known)), None))

    def end(self, *numbers: int) -> tuple[int, str]:
        """Exit code and what was reported; `stdout` is what workers printed."""
        for number in numbers:
            self.process.send_signal(number)
        self.stdout, reported = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, reported


def until(ready: Callable):
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if found := ready():
            return found
        time.sleep(0.02)
    raise AssertionError("did not happen")


def is_alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    try:
        return "\nState:\tZ" not in Path(f"/proc/{number}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended between the two looks
        return False


@contextmanager
def running(count: int, mode: str = "well") -> Iterator[Toy]:
    toy = Toy(count, mode)
    try:
        yield toy
    finally:
        if toy.process.poll() is None:
            toy.process.kill()
            toy.process.communicate(timeout=WAIT_S)  # its workers see that they are orphans


def test_a_killed_worker_is_replaced_and_sigterm_ends_all():
    with running(2) as toy:
        first = toy.ask()
        other = toy.someone_else(first)
        os.kill(first, signal.SIGKILL)
        third = toy.someone_else(first, other)
        code, reported = toy.end(signal.SIGTERM)
        assert code == coordination.EXIT_OK
        assert f"worker {first} ended with signal 9" in reported
        assert not any(is_alive(number) for number in (first, other, third))


def test_a_worker_whose_loop_stands_still_is_replaced():
    with running(1) as toy:
        first = toy.ask(b"hang")
        until(lambda: not is_alive(first))
        assert toy.someone_else(first)
        assert "does not answer: killed" in toy.end(signal.SIGINT)[1]


def test_a_service_whose_workers_are_killed_one_after_another_goes_on():
    kills = supervisor.MAX_FAILED_STARTS + 1
    with running(1) as toy:
        known = [toy.ask()]
        for _ in range(kills):
            os.kill(known[-1], signal.SIGKILL)
            known.append(toy.someone_else(*known))
        code, reported = toy.end(signal.SIGTERM)
        assert code == coordination.EXIT_OK
        pauses = re.findall(r"ended with signal 9; the next one starts in ([\d.]+) s", reported)
        assert [float(pause) for pause in pauses] == [0, 0.05, 0.1, 0.15, 0.15, 0.15]


def test_a_worker_that_asks_serves_until_its_replacement_does():
    with running(1) as toy:
        first = toy.ask(b"replace")
        second = toy.someone_else(first)
        until(lambda: not is_alive(first))
        assert toy.ask() == second
        code, reported = toy.end(signal.SIGTERM)
        assert (code, toy.stdout) == (coordination.EXIT_OK, "relieved\n")
        assert reported == f"mmllm: worker {first} asks to be replaced\n"


def test_workers_that_ask_together_are_all_replaced():
    with running(2) as toy:
        first = toy.ask()
        second, pids = toy.someone_else(first), set()
        until(lambda: pids.add(toy.ask(b"replace")) or pids >= {first, second})
        until(lambda: not is_alive(first) and not is_alive(second))
        assert toy.ask() not in (first, second)
        assert toy.end(signal.SIGTERM)[0] == coordination.EXIT_OK
        assert toy.stdout.count("relieved\n") >= 2
        assert "alone" not in toy.stdout.split("\n")[:2]


def test_no_room_for_another_process_ends_no_service_that_runs():
    with running(2, "crowded") as toy:
        first = toy.ask()
        second = toy.someone_else(first)
        os.kill(first, signal.SIGKILL)
        toy.someone_else(first, second)
        code, reported = toy.end(signal.SIGTERM)
        assert code == coordination.EXIT_OK
        assert reported.count("no worker could be started (Resource temporarily unavailable)") == 3


def test_while_workers_drain_new_connections_are_refused():
    with running(2, "slow") as toy:
        first = toy.ask()
        toy.someone_else(first)
        toy.process.send_signal(signal.SIGTERM)

        def is_refused() -> bool:
            try:
                toy.ask()
            except ConnectionRefusedError:
                return True
            except (ConnectionError, ValueError):  # it waited when the socket closed
                pass
            return False

        until(is_refused)
        assert toy.process.poll() is None
        assert toy.end(signal.SIGINT)[0] == coordination.EXIT_STUCK


def test_a_hangup_replaces_every_worker_while_others_answer():
    with running(2) as toy:
        first = toy.ask()
        second = toy.someone_else(first)
        toy.process.send_signal(signal.SIGHUP)
        until(lambda: toy.ask() and not is_alive(first) and not is_alive(second))
        assert toy.ask() not in (first, second)
        assert toy.end(signal.SIGTERM) == (coordination.EXIT_OK, "")


def test_a_service_that_cannot_start_ends_with_a_code():
    with running(2, "fail") as toy:
        code, reported = toy.end()
        assert code == coordination.EXIT_START
        assert "no worker can start" in reported


def test_a_worker_that_does_not_end_is_killed():
    with running(1, "deaf") as toy:
        number = toy.ask()
        code, reported = toy.end(signal.SIGTERM)
        assert code == coordination.EXIT_STUCK
        assert reported == f"mmllm: worker {number} does not answer: killed\n"
        assert not is_alive(number)


def test_a_second_signal_does_not_wait():
    with running(1, "slow") as toy:
        number = toy.ask()
        toy.process.send_signal(signal.SIGTERM)
        code, reported = toy.end(signal.SIGINT)
        assert code == coordination.EXIT_STUCK
        assert reported == f"mmllm: worker {number} is not waited for: killed\n"
        assert not is_alive(number)


def test_a_service_whose_terminal_is_gone_goes_on():
    with running(1) as toy:
        assert toy.process.stderr is not None
        toy.process.stderr.close()
        first = toy.ask()
        os.kill(first, signal.SIGKILL)
        assert toy.someone_else(first)
        assert toy.end(signal.SIGTERM)[0] == coordination.EXIT_OK


def test_the_folder_of_metrics_starts_empty_and_goes(monkeypatch, tmp_path: Path):
    monkeypatch.delenv(supervisor.MULTIPROCESS_VARIABLE, raising=False)
    with supervisor.metrics_folder() as folder:
        assert os.environ[supervisor.MULTIPROCESS_VARIABLE] == str(folder)
        assert folder.is_dir()
    assert not folder.exists()
    assert supervisor.MULTIPROCESS_VARIABLE not in os.environ
    (tmp_path / "counter_1.db").write_bytes(b"old")
    (tmp_path / "mine.txt").write_text("kept")
    monkeypatch.setenv(supervisor.MULTIPROCESS_VARIABLE, str(tmp_path))
    with supervisor.metrics_folder() as folder:
        assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    assert tmp_path.is_dir()


def test_pauses_grow_to_a_bound_and_a_worker_that_lived_starts_them_anew():
    slot, back_off_s = supervisor.Slot(), supervisor.BACK_OFF_S
    long_s = supervisor.HEALTHY_S + 1
    assert [slot.back_off(False, 1.0, back_off_s) for _ in range(9)] == [
        *back_off_s[1:],
        30.0,
        30.0,
    ]
    assert slot.failed_starts == 9
    assert slot.back_off(True, 1.0, back_off_s) == back_off_s[-1]
    assert slot.failed_starts == 0
    assert slot.back_off(True, long_s, back_off_s) == 0
    assert slot.back_off(True, 1.0, back_off_s) == back_off_s[1]
    assert slot.back_off(False, long_s, back_off_s) == back_off_s[3]  # it hung while it started
