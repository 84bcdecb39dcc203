"""Faults under load, for seconds each; `make faults` runs them longer and writes what came of them.

Whatever breaks, no answer may be wrong, no request may hang, and the service must be well again.
"""

import pytest

from experiments import companions, serving_faults

SECONDS = 3.0
HARMLESS = {
    "redis_down_and_back",
    "full_disk_for_logs",
    "full_disk_for_log_file",
    "slow_clients",
    "half_sent_bodies",
    "kill_replica_behind_nginx",
}
# Of the connections to the killed process; each had one request on its way.
MOST_LOST = {"kill_worker": serving_faults.CLIENTS}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def truth() -> serving_faults.Truth:
    return serving_faults.Truth()


@pytest.mark.parametrize("fault", serving_faults.FAULTS)
def test_no_answer_is_wrong_none_hangs_and_it_passes(fault: str, truth: serving_faults.Truth):
    try:
        row = serving_faults.FAULTS[fault](truth, SECONDS)
    except companions.Missing as missing:
        pytest.skip(str(missing))
    assert row["good"] > 0, row
    assert row["wrong"] == 0, row
    assert row["hung"] == 0, row
    assert row["recovery_s"] is not None, row
    if fault in HARMLESS:
        assert row["failed"] == 0, row
    assert row["failed"] <= MOST_LOST.get(fault, row["failed"]), row
