"""Tables about the service, from results made by hand."""

import pytest

from experiments.tables import serving
from tests.experiments.tables.test_artifact import of

TIMES = {"p50_ms": 4.0, "p95_ms": 7.25, "p99_ms": 9.96}


def test_a_load_has_a_row_for_a_server_and_a_column_for_a_number_of_clients():
    row = {"server": "mmllm serve", "task": "embed", "clients": 8, "requests_per_second": 99.6}
    alone = row | {"clients": 1, "requests_per_second": 40.2}
    other = row | {"server": "another", "task": "caption"}
    rows = [each | TIMES for each in (row, alone, other)]
    lines = serving.load_table(of("serving", closed=rows)).splitlines()
    assert lines[0] == "| task | server | 1 client | 8 clients |"
    assert lines[2:] == [
        "| caption | another | — | 100: 4/7/10 |",
        "| embed | mmllm serve | 40: 4/7/10 | 100: 4/7/10 |",
    ]


def test_a_rate_shows_answers_by_status_and_a_load_without_answers_a_dash():
    row = {"task": "caption", "rate": 210.4, "statuses": {"503": 5, "200": 95}} | TIMES
    silent = row | {"p50_ms": None, "p99_ms": None, "statuses": {}}
    lines = serving.rates_table(of("serving", open=[row, silent])).splitlines()
    assert lines[-2] == "| caption | 210 | 4.0 | 10.0 | 200: 95, 503: 5 |"
    assert lines[-1] == "| caption | 210 | — | — | — |"


def test_a_fault_shows_what_failed_and_one_that_was_skipped_shows_nothing():
    row = {
        "row": "kill_worker",
        "good": 700,
        "statuses": {"200": 700, "broken": 4},
        "wrong": 0,
        "hung": 0,
        "recovery_s": 0.52,
        "longest_pause_s": 0.2,
    }
    clean = row | {"row": "slow_clients", "statuses": {"200": 700}, "recovery_s": None}
    skipped = {"row": "redis_down", "skipped": "no redis-server"}
    results = [{"kind": "serving_faults", "rows": [row, clean, skipped]}]
    lines = serving.faults_table(results).splitlines()
    assert lines[-3] == ("| SIGKILL of one of two workers | 700 | broken: 4 | 0 | 0 | 0.5 | 0.2 |")
    assert lines[-2] == "| slow clients | 700 | 0 | 0 | 0 | — | 0.2 |"
    assert lines[-1] == "| redis down | — | — | — | — | — | — |"


def test_a_soak_shows_memory_at_both_ends_and_its_slope():
    row = {
        "seconds": 600.0,
        "rate": 20.0,
        "statuses": {"200": 12_000},
        "p99_ms": 30.0,
        "memory_mb_first": 210.4,
        "memory_mb_last": 230.0,
        "memory_mb_an_hour": 4.4,
    }
    table = serving.soak_table(of("serving_soak", **row))
    assert table.splitlines()[-1] == "| 10 | 20 | 200: 12000 | 30.0 | 210 | 230 | +4 |"


@pytest.mark.parametrize("name", serving.TABLES)
def test_a_table_without_a_result_is_a_row_of_dashes(name: str):
    cells = serving.TABLES[name]([]).splitlines()[-1].strip("| ").split(" | ")
    assert set(cells) == {"—"}
