"""Every kind of committed rows knows which config it would measure today."""

import json

import pytest

from experiments import rows as rows_lib
from experiments.tables import today


@pytest.mark.parametrize("path", sorted(rows_lib.RESULTS.glob("*.json")), ids=lambda p: p.stem)
def test_the_config_of_a_committed_row_is_found(path):
    result = json.loads(path.read_text())
    if result["kind"] in today.KINDS:
        assert all(today.config_of(result["kind"], row) is not None for row in result["rows"])


def test_a_row_that_is_gone_has_no_config():
    assert today.config_of("quantization", {"row": "int3", "seed": 0}) is None
    assert today.config_of("throughput", {"row": "no_such_config"}) is None
