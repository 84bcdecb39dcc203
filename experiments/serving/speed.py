"""How fast the service is: under 1 to 128 clients, at rates it can sustain, and beside baselines.

Command:  python -m experiments.serving.speed [--litserve PYTHON] [--seconds 8] [--smoke]
Hardware: 2 CPU cores, which the load shares with the service: read ratios before figures.
Time:     15 minutes.
Writes:   experiments/results/serving.json

Every request has a picture of its own and the cache of results is off, but for the rows that name
it. `--litserve` names a Python that has LitServe; without it those rows are missing.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from experiments import runner
from experiments.rows import Row
from experiments.serving import service_process

ROOT = Path(__file__).parents[2]
CLIENTS = (1, 8, 32, 128)
TASKS = ("caption", "embed")
SHARES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the closed-loop throughput, for open loads
TARGET_MS = 200.0
OVERLOAD = 2.0
# Room for 128 clients that wait; the overload rows have the default queue.
WIDE = {"MMLLM_QUEUE_SIZE": "256", "MMLLM_LOG_LEVEL": "INFO"}
UNCACHED = {"MMLLM_CACHE_ITEMS": "0"}


def kinds(litserve: str | None) -> dict[str, Any]:
    """What is measured, by name: each starts a service."""
    found = {
        "mmllm serve": lambda: service_process.mmllm(**WIDE, **UNCACHED),
        "mmllm serve --workers 2": lambda: service_process.mmllm(
            "--workers", "2", **WIDE, **UNCACHED
        ),
        "mmllm serve, cached": lambda: service_process.mmllm(**WIDE),
        "FastAPI, one model and a lock": lambda: baseline("lock"),
        "FastAPI, a model a thread": lambda: baseline("threads"),
    }
    if litserve:
        found["LitServe"] = lambda: baseline(None, litserve, "/health")
    return found


def has_litserve(python: str) -> bool:
    """Whether a Python can run `experiments.serving.litserve_server`."""
    command = [python, "-c", "import experiments.serving.litserve_server"]
    try:
        return not subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


def baseline(kind: str | None, python: str = sys.executable, ready: str = "/ready") -> Any:
    """Starts one of `experiments.serving.baselines`, or LitServe for None."""
    port = service_process.free_port()
    module, rest = ("baselines", [kind]) if kind else ("litserve_server", [])
    command = [python, "-m", f"experiments.serving.{module}", str(port), *rest]
    return service_process.running(command, port, ready)


def closed_rows(litserve: str | None, seconds: float, clients: tuple[int, ...]) -> list[Any]:
    """Every kind under every number of clients."""
    rows = []
    for kind, start in kinds(litserve).items():
        with start() as service:
            for task in TASKS:
                for count in clients:
                    measured = service_process.load(service.url, task, seconds, clients=count)
                    rows.append({"server": kind, "task": task, "clients": count, **measured})
                    print(kind, task, count, measured, flush=True)
    return rows


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Throughput of `mmllm serve` over each other kind's, where both have a row."""
    ours = {(r["task"], r["clients"]): r for r in rows if r["server"] == "mmllm serve"}
    return [
        {
            "over": row["server"],
            "task": row["task"],
            "clients": row["clients"],
            "throughput": round(mine["requests_per_second"] / row["requests_per_second"], 3),
            "p99": round(mine["p99_ms"] / row["p99_ms"], 3),
        }
        for row in rows
        if row["server"] != "mmllm serve"
        and (mine := ours[row["task"], row["clients"]])["p99_ms"]
        and row["p99_ms"]
    ]


def open_rows(capacity: dict[str, float], seconds: float) -> list[dict[str, Any]]:
    """Fixed rates below what closed loads reached, and one far above it."""
    rows = []
    for task in TASKS:
        with service_process.mmllm(**UNCACHED) as service:
            for share in (*SHARES, OVERLOAD):
                rate = round(share * capacity[task], 1)
                measured = service_process.load(service.url, task, seconds, rate=rate)
                rows.append({"task": task, "rate": rate, "share": share, **measured})
                print("open", task, rate, measured, flush=True)
    return rows


def sustainable(rows: list[dict[str, Any]], task: str) -> dict[str, Any] | None:
    """The highest rate at which nothing failed and the p99 of all rates up to it met the target."""
    best = None
    for row in rows:
        if row["task"] != task:
            continue
        if set(row["statuses"]) != {"200"} or row["p99_ms"] > TARGET_MS:
            break
        best = {"rate": row["rate"], "p50_ms": row["p50_ms"], "p99_ms": row["p99_ms"]}
    return best


def measure(litserve: str | None, seconds: float, clients: tuple[int, ...]) -> dict[str, Any]:
    """Everything."""
    rows = closed_rows(litserve, seconds, clients)
    ours = [row for row in rows if row["server"] == "mmllm serve"]
    capacity = {
        task: max(row["requests_per_second"] for row in ours if row["task"] == task)
        for task in TASKS
    }
    rates = open_rows(capacity, seconds)
    return {
        "seconds": seconds,
        "target_ms": TARGET_MS,
        "closed": rows,
        "ratios": ratios(rows),
        "open": rates,
        "sustainable": {task: sustainable(rates, task) for task in TASKS},
    }


def main() -> None:
    """Measures and writes the result; --smoke writes nothing."""
    parser = runner.parser(__doc__)
    parser.add_argument("--litserve", metavar="PYTHON", help="a Python that has LitServe")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each row")
    args = parser.parse_args()
    if args.litserve and not has_litserve(args.litserve):  # not after minutes of other rows
        parser.error(f"{args.litserve} is no Python that has LitServe and what mmllm needs")
    seconds, clients = (1.0, (1, 8)) if args.smoke else (args.seconds, CLIENTS)

    def figures(_: Row) -> dict[str, Any]:
        found = measure(args.litserve, seconds, clients)
        print(found["sustainable"])
        return found

    runner.run("serving", [service_process.shipped()], figures, smoke=args.smoke)


if __name__ == "__main__":
    main()
