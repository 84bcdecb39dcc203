"""Tables about the HTTP service: speed under load, what it sustains, faults, the long run."""

from collections.abc import Callable, Sequence

from experiments.tables import notes
from mmllm.evaluate import scores
from mmllm.evaluate.scores import Result

FAULTS = {
    "kill_worker": "SIGKILL of one of two workers",
    "kill_worker_behind_nginx": "the same behind nginx",
}
"""How a table names a fault; others by their own name."""


def load_table(results: Sequence[Result]) -> str:
    """README: requests a second and p50/p95/p99, by server, task and number of clients."""
    result = notes.newest(results, "serving")
    found: dict[tuple[str, str], dict[int, str]] = {}
    for row in result["closed"] if result else ():
        times = "/".join(_whole(row[name]) for name in ("p50_ms", "p95_ms", "p99_ms"))
        cell = f"{row['requests_per_second']:.0f}: {times}"
        found.setdefault((row["task"], row["server"]), {})[row["clients"]] = cell
    clients = sorted({count for cells in found.values() for count in cells})
    rows = [
        (task, server, *(cells.get(count, scores.DASH) for count in clients))
        for (task, server), cells in sorted(found.items(), key=lambda item: item[0][0])
    ]
    header = ("task", "server", *(f"{count} client{'s' * (count > 1)}" for count in clients))
    return notes.noted(header, rows, result)


def rates_table(results: Sequence[Result]) -> str:
    """README: latency at fixed rates, whatever the answers take; above the last one it refuses."""
    result = notes.newest(results, "serving")
    rows = [
        (
            row["task"],
            f"{row['rate']:.0f}",
            *(_milliseconds(row[name]) for name in ("p50_ms", "p99_ms")),
            _statuses(row["statuses"]),
        )
        for row in (result["open"] if result else ())
    ]
    header = ("task", "requests/s sent", "p50 ms", "p99 ms", "answers by status")
    return notes.noted(header, rows, result)


def faults_table(results: Sequence[Result]) -> str:
    """README: what each fault cost."""
    measured = notes.rows_of(results, "serving_faults")
    rows = []
    for row in measured:
        name = notes.signed(FAULTS.get(row["row"], row["row"].replace("_", " ")), row)
        if "skipped" in row:
            rows.append((name, *[scores.DASH] * 6))
            continue
        recovery = row.get("recovery_s")
        rows.append(
            (
                name,
                str(row["good"]),
                _statuses(row["statuses"], but="200"),
                str(row.get("wrong", 0)),
                str(row["hung"]),
                scores.DASH if recovery is None else f"{recovery:.1f}",
                f"{row['longest_pause_s']:.1f}",
            )
        )
    header = ("fault", "answered", "failed", "wrong", "hung", "recovery s", "longest pause s")
    return scores.markdown(header, rows) + notes.footnotes(measured)


def soak_table(results: Sequence[Result]) -> str:
    """README: memory over a long run."""
    result = notes.newest(results, "serving_soak")
    rows = []
    if result:
        rows.append(
            (
                f"{result['seconds'] / 60:.0f}",
                f"{result['rate']:.0f}",
                _statuses(result["statuses"]),
                _milliseconds(result["p99_ms"]),
                *(f"{result[name]:.0f}" for name in ("memory_mb_first", "memory_mb_last")),
                f"{result['memory_mb_an_hour']:+.0f}",
            )
        )
    header = (
        "minutes",
        "requests/s sent",
        "answers by status",
        "p99 ms",
        "MB at first",
        "MB at last",
        "MB an hour after warm-up",
    )
    return notes.noted(header, rows, result)


def _milliseconds(value: float | None) -> str:
    return scores.DASH if value is None else f"{value:.1f}"


def _whole(value: float | None) -> str:
    return scores.DASH if value is None else f"{value:.0f}"


def _statuses(counts: Result, but: str = "") -> str:
    shown = [f"{status}: {count}" for status, count in sorted(counts.items()) if status != but]
    return ", ".join(shown) or ("0" if but else scores.DASH)


TABLES: dict[str, Callable[[Sequence[Result]], str]] = {
    "service_load": load_table,
    "service_rates": rates_table,
    "service_faults": faults_table,
    "service_soak": soak_table,
}
