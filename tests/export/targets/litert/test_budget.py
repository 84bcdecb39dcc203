"""The budget: bytes worked by hand, and the limit. test_target adds up a whole file."""

import numpy as np
import pytest

from mmllm import bundle
from mmllm.export.targets.litert import budget, flatbuffer
from mmllm.runtime.model import ZOO
from tests.export.targets.litert.test_flatbuffer import model_of

pytestmark = pytest.mark.export


def test_a_shared_weight_counts_once_with_its_scales():
    model = model_of("FULLY_CONNECTED", np.eye(4), graphs=3)
    scale = np.ones(4, np.float32)
    flatbuffer.quantize(model, 1, "encoder/up/kernel", np.zeros(4, np.uint8), 2, scale)
    file = flatbuffer.write(model)
    rows = {row["part"]: row for row in budget.of_file(file)["rows"]}
    assert rows["encoder"] == {"part": "encoder", "type": "INT2", "weights": 16, "bytes": 4}
    assert rows["scales"]["bytes"] == 16
    assert rows["zero points"]["bytes"] == 32
    assert rows["graph"]["bytes"] == len(file) - 4 - 16 - 32


def test_constants_without_a_name_are_told_by_what_reads_them():
    file = (ZOO / "nano" / bundle.LITERT).read_bytes()
    rows = {(row["part"], row["type"]): row for row in budget.of_file(file)["rows"]}
    assert sum(row["bytes"] for row in rows.values()) == len(file)
    assert rows["norms", "FLOAT32"]["weights"] // 192 == 17  # and two single numbers
    assert rows["other numbers", "FLOAT32"]["bytes"] < 100
    others = [part for part, kind in rows if kind == "INT32"]
    assert others == [budget.SHAPES]


def test_a_file_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(budget, "MAX_BYTES", 3)
    with pytest.raises(ValueError, match="at most 3 bytes, got 4"):
        budget.of_file(b"1234")
