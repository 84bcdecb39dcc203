"""What goes wrong when something breaks under load: what failed, what was lost, when it was over.

Command:  python -m experiments.serving.faults [--seconds 12] [--rows FAULT ...] [--smoke]
Hardware: 2 CPU cores; nginx and redis-server where a fault needs them, else its row says so.
Time:     4 minutes.
Writes:   experiments/results/serving_faults.json

Each fault happens a third into the load. Every answer is compared with the model's own, without a
service between: "wrong" must be 0 in every row. "hung" counts requests unanswered after 30 s.
"""

import asyncio
import contextlib
import json
import re
import resource
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments import runner
from experiments.rows import Row
from experiments.serving import companions, load_generator, service_process
from mmllm.runtime import model as model_lib

CLIENTS = 8
PICTURES = 64
SLOW_CLIENTS = 100
CUT_BODIES = 200
BREAKER_OPEN_S = 1
FAULT_SHARE = 0.25  # of the load's seconds: how long an engine is broken
UNCACHED = {"MMLLM_CACHE_ITEMS": "0"}


class Truth:
    """Pictures, and the model's captions of them, without a service between."""

    def __init__(self) -> None:
        self.pictures = load_generator.pictures(PICTURES)
        self.captions = model_lib.MobileMultiModalLLM.from_pretrained("nano").caption_batch(
            self.pictures
        )


class Load:
    """Closed load from a thread, while the block that holds it breaks something."""

    def __init__(self, url: str, truth: Truth, seconds: float, clients: int = CLIENTS) -> None:
        requests = [load_generator.request(url, "/v1/caption", p) for p in truth.pictures]
        self.seconds, self.start = seconds, time.time()
        self.outcomes = load_generator.Outcomes()

        def run() -> None:
            self.outcomes = asyncio.run(
                load_generator.closed(url, requests, clients, seconds, truth.captions)
            )

        self._thread = threading.Thread(target=run)

    def __enter__(self) -> "Load":
        self._thread.start()
        time.sleep(self.seconds / 3)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def row(self, **fields: Any) -> dict[str, Any]:
        """What came of it."""
        outcomes = self.outcomes
        times = [self.start, *sorted(outcomes.at)]
        # Not the first one, from the start to the first answer: it is no pause of a fault.
        pauses = [after - before for before, after in zip(times[1:-1], times[2:], strict=True)]
        failed = sorted(outcomes.failed_at)
        return {
            **load_generator.summary(outcomes, self.seconds),
            "good": len(outcomes.seconds),
            "failed": sum(n for status, n in outcomes.statuses.items() if status != "200"),
            "hung": outcomes.statuses.get("hung", 0),
            "longest_pause_s": round(max(pauses, default=self.seconds), 2),
            "failing_for_s": round(failed[-1] - failed[0], 2) if failed else 0.0,
            **fields,
        }


def _starts(log: Any) -> int:
    """How many workers have started, by their log."""
    return Path(log.name).read_bytes().count(b"Application startup complete")


def _killed_worker(service: service_process.Service, log: Any) -> float | None:
    """Kills the busier of two workers; seconds until a third has started."""
    before = _starts(log)
    # The busier one: an idle worker's end would cost nothing.
    max(service.processes()[1:], key=lambda worker: len(worker.net_connections("tcp"))).kill()
    return _seconds(lambda: _starts(log) > before, 20.0)


def _ask(url: str, sent: bytes) -> tuple[str, bytes]:
    """One request on a connection of its own."""

    async def ask() -> tuple[str, bytes]:
        client = load_generator.Client(url)
        try:
            return await client.ask(sent)
        finally:
            client.close()

    return asyncio.run(ask())


def _seconds(happens: Callable[[], bool], max_s: float) -> float | None:
    """Seconds until something happens; None if it does not."""
    waited = service_process.wait_until(happens, max_s, 0.02)
    return round(waited, 2) if waited < max_s else None


def kill_worker(truth: Truth, seconds: float) -> dict[str, Any]:
    """SIGKILL of one of two workers; their clients see the break."""
    with (
        tempfile.NamedTemporaryFile() as log,
        service_process.mmllm("--workers", "2", out=log, **UNCACHED) as service,
    ):
        service_process.wait_until(lambda: _starts(log) == 2)
        with Load(service.url, truth, seconds) as load:
            recovery = _killed_worker(service, log)
        return load.row(recovery_s=recovery)


def kill_worker_behind_nginx(truth: Truth, seconds: float) -> dict[str, Any]:
    """The same behind nginx, which asks again: once for each place in its list."""
    with (
        tempfile.NamedTemporaryFile() as log,
        service_process.mmllm("--workers", "2", out=log, **UNCACHED) as service,
    ):
        service_process.wait_until(lambda: _starts(log) == 2)
        port = int(service.url.rpartition(":")[2])
        with companions.nginx(port, port) as url:
            with Load(url, truth, seconds) as load:
                recovery = _killed_worker(service, log)
            return load.row(recovery_s=recovery)


def kill_replica_behind_nginx(truth: Truth, seconds: float) -> dict[str, Any]:
    """SIGKILL of one of two services behind nginx; it is started again after two seconds."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(service_process.mmllm(**UNCACHED))
        second = stack.enter_context(service_process.mmllm(**UNCACHED))
        ports = [int(s.url.rpartition(":")[2]) for s in (first, second)]
        url = stack.enter_context(companions.nginx(*ports))
        with Load(url, truth, seconds) as load:
            start = time.perf_counter()
            first.process.kill()
            first.process.wait()
            time.sleep(min(2.0, seconds / 6))
            stack.enter_context(service_process.mmllm(port=ports[0], **UNCACHED))
            recovery = round(time.perf_counter() - start, 2)
        return load.row(recovery_s=recovery)


def redis_down_and_back(truth: Truth, seconds: float) -> dict[str, Any]:
    """Redis holds cache and limits; it is killed and started again."""
    port = service_process.free_port()
    with contextlib.ExitStack() as stack:
        kill = stack.enter_context(companions.redis(port))
        url = f"redis://127.0.0.1:{port}"
        service = stack.enter_context(service_process.mmllm(MMLLM_REDIS_URL=url))
        with Load(service.url, truth, seconds) as load:
            kill()
            time.sleep(seconds / 4)
            stack.enter_context(companions.redis(port))
            request = load_generator.request(service.url, "/v1/caption", truth.pictures[0])

            def cached() -> bool:
                status, body = _ask(service.url, request)
                return status == "200" and json.loads(body)["cached"]

            recovery = _seconds(cached, 20.0)
        return load.row(recovery_s=recovery)


def _faulty(
    fault: str, truth: Truth, seconds: float, engine_timeout_s: str = "5"
) -> dict[str, Any]:
    port = service_process.free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments.serving.faulty_service", str(port), folder]
        with service_process.running(
            command,
            port,
            MMLLM_CACHE_ITEMS="0",
            MMLLM_BREAKER_OPEN_S=str(BREAKER_OPEN_S),
            MMLLM_ENGINE_TIMEOUT_S=engine_timeout_s,
        ) as service:
            file = Path(folder) / fault
            request = load_generator.request(service.url, "/v1/caption", truth.pictures[0])

            def well() -> bool:
                status, body = _ask(service.url, request)
                return status == "200" and not json.loads(body)["degraded"]

            with Load(service.url, truth, seconds) as load:
                file.touch()
                time.sleep(seconds * FAULT_SHARE)
                file.unlink()
                recovery = _seconds(well, 20.0)
            return load.row(recovery_s=recovery, ended=service.process.poll())


def engine_raises(truth: Truth, seconds: float) -> dict[str, Any]:
    """Every call of the engine raises for a while: breaker, fallback, probe."""
    return _faulty("raise", truth, seconds)


def engine_hangs(truth: Truth, seconds: float) -> dict[str, Any]:
    """No call of the engine returns for a while: timeout, new threads, breaker."""
    return _faulty("hang", truth, seconds, engine_timeout_s="0.5")


def _lines_lost(service: service_process.Service) -> int:
    """How many log lines the service says that it could not write."""
    found = re.search(r"^mmllm_log_lines_dropped_total (\S+)$", service.get("/metrics")[1], re.M)
    return round(float(found[1])) if found else 0


def full_disk_for_logs(truth: Truth, seconds: float) -> dict[str, Any]:
    """Standard output is full throughout (/dev/full), as a log on a full disk is.

    That does not pass; well is a service that answers and counts the lines it lost.
    """
    with open("/dev/full", "wb") as full, service_process.mmllm(out=full, **UNCACHED) as service:
        request = load_generator.request(service.url, "/v1/caption", truth.pictures[0])
        with Load(service.url, truth, seconds) as load:
            before = _lines_lost(service)

            def well() -> bool:
                return _ask(service.url, request)[0] == "200" and _lines_lost(service) > before

            recovery = _seconds(well, 20.0)
        return load.row(recovery_s=recovery, lines_lost=_lines_lost(service))


def full_disk_for_log_file(truth: Truth, seconds: float) -> dict[str, Any]:
    """The log's file cannot grow over 64 kB, as on a full disk; then it can again."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mmllm.log"
        with service_process.mmllm(MMLLM_LOG_FILE=str(file), **UNCACHED) as service:
            pid, free = service.process.pid, resource.RLIM_INFINITY
            with Load(service.url, truth, seconds) as load:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, free))
                time.sleep(seconds / 4)
                size = file.stat().st_size
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (free, free))
                recovery = _seconds(lambda: file.stat().st_size > size, 20.0)
            return load.row(recovery_s=recovery, lines_lost=_lines_lost(service))


def _dribble(url: str, head: bytes, stopped: threading.Event) -> Callable[[], int]:
    """Opens SLOW_CLIENTS connections that send a byte a second; returns what counts open ones."""
    host, port = url.rpartition("//")[2].split(":")
    clients = []
    for _ in range(SLOW_CLIENTS):
        client = socket.create_connection((host, int(port)), timeout=5)
        client.sendall(head)
        clients.append(client)

    def send() -> None:
        while not stopped.wait(1.0):
            for client in list(clients):
                try:
                    client.sendall(b"a")
                    client.setblocking(False)
                    if not client.recv(4096):
                        raise ConnectionResetError
                except BlockingIOError:
                    continue
                except OSError:
                    clients.remove(client)
                    client.close()

    threading.Thread(target=send, daemon=True).start()
    return lambda: len(clients)


def slow_clients(truth: Truth, seconds: float) -> dict[str, Any]:
    """A hundred connections dribble heads and bodies; others must not notice, and they must end."""
    stopped = threading.Event()
    body_s = 3.0
    head = b"POST /v1/caption HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
    with service_process.mmllm(MMLLM_BODY_TIMEOUT_S=str(body_s), **UNCACHED) as service:
        with Load(service.url, truth, seconds) as load:
            heads = _dribble(service.url, b"GET / HTTP/1.1\r\nX: ", stopped)
            bodies = _dribble(service.url, head + b"Content-Length: 100000\r\n\r\n", stopped)
            recovery = _seconds(lambda: heads() + bodies() == 0, 40.0)
        left = heads() + bodies()
        stopped.set()
        return load.row(recovery_s=recovery, slow=2 * SLOW_CLIENTS, slow_left=left)


def half_sent_bodies(truth: Truth, seconds: float) -> dict[str, Any]:
    """Uploads that are cut off in the middle; nothing of them may stay in flight."""
    with service_process.mmllm(**UNCACHED) as service:
        whole = load_generator.request(service.url, "/v1/caption", truth.pictures[0])
        host, port = service.url.rpartition("//")[2].split(":")
        with Load(service.url, truth, seconds) as load:
            for number in range(CUT_BODIES):
                client = socket.create_connection((host, int(port)), timeout=5)
                client.sendall(whole[: len(whole) * (number + 1) // (CUT_BODIES + 1)])
                client.close()
        idle = "mmllm_requests_in_flight 1.0"  # the one that asks
        recovery = _seconds(lambda: idle in service.get("/metrics")[1], 20.0)
        return load.row(recovery_s=recovery, cut=CUT_BODIES)


FAULTS: dict[str, Callable[[Truth, float], dict[str, Any]]] = {
    function.__name__: function
    for function in (
        kill_worker,
        kill_worker_behind_nginx,
        kill_replica_behind_nginx,
        redis_down_and_back,
        engine_raises,
        engine_hangs,
        full_disk_for_logs,
        full_disk_for_log_file,
        slow_clients,
        half_sent_bodies,
    )
}


def main() -> None:
    """Runs faults and writes a row for each."""
    parser = runner.parser(__doc__, list(FAULTS))
    parser.add_argument("--seconds", type=float, default=12.0, help="of load in each")
    args = parser.parse_args()
    seconds, names = (3.0, args.rows[:1]) if args.smoke else (args.seconds, args.rows)
    truth = Truth()

    def figures(row: Row) -> dict[str, Any]:
        try:
            found = FAULTS[row.name](truth, seconds)
        except companions.Missing as error:
            found = {"skipped": str(error)}
        print(json.dumps(found), flush=True)
        return {"seconds": seconds, "clients": CLIENTS, **found}

    rows = [service_process.shipped(name) for name in names]
    runner.run("serving_faults", rows, figures, smoke=args.smoke)


if __name__ == "__main__":
    main()
