"""Faults under load, for seconds each; `make faults` runs them longer and writes what came of them.

Whatever breaks, no answer may be wrong, no request may hang, no more may fail than the fault
explains, and the service must be well again.
"""

import pytest

from experiments.serving import companions, faults, load_generator

SECONDS = 3.0
HANG_SECONDS = 12.0  # long enough for a breaker to open, and for some of its probes to hang as well


def refused(seconds: float) -> float:
    """While an engine is broken and its breaker waits, clients may be refused at every turn."""
    broken_s = seconds * faults.FAULT_SHARE + faults.BREAKER_OPEN_S
    return faults.CLIENTS * broken_s / load_generator.REFUSED_S


MAX_FAILED = {
    # Of the connections to the killed process; each had one request on its way.
    "kill_worker": faults.CLIENTS,
    "kill_worker_behind_nginx": faults.CLIENTS,
    "kill_replica_behind_nginx": 0,
    "redis_down_and_back": 0,
    "engine_raises": refused(SECONDS),
    "engine_hangs": refused(HANG_SECONDS),
    "full_disk_for_logs": 0,
    "full_disk_for_log_file": 0,
    "slow_clients": 0,
    "half_sent_bodies": 0,
}
LOSES_LINES = {"full_disk_for_logs", "full_disk_for_log_file"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def truth() -> faults.Truth:
    return faults.Truth()


@pytest.mark.parametrize("fault", faults.FAULTS)
def test_no_answer_is_wrong_none_hangs_and_it_passes(fault: str, truth: faults.Truth):
    try:
        seconds = HANG_SECONDS if fault == "engine_hangs" else SECONDS
        row = faults.FAULTS[fault](truth, seconds)
    except companions.Missing as missing:
        pytest.skip(str(missing))
    assert row["good"] > 0, row
    assert row["wrong"] == 0, row
    assert row["hung"] == 0, row
    assert row["recovery_s"] is not None, row
    assert row.get("ended") is None, row  # the process itself lived through it
    assert row["failed"] <= MAX_FAILED[fault], row
    if fault in LOSES_LINES:
        assert row["lines_lost"] > 0, row
