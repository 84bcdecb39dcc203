"""The fuzzer makes the same inputs again, reaches every decoder, and sees what it should see."""

import signal

import numpy as np
import pytest

from experiments.serving import fuzz
from mmllm.serve import problems
from mmllm.serve.guard import pictures

PLAN = fuzz.Plan(runs=600)


@pytest.fixture(scope="module")
def found():
    return fuzz.run(PLAN, iter(range(PLAN.runs)))


def test_nothing_fails(found):
    assert found["failures"] == []
    assert found["inputs"] == PLAN.runs


def test_every_target_takes_and_refuses(found):
    rows = {row["target"]: row for row in found["targets"]}
    assert set(rows) == set(fuzz.Fuzzer(PLAN).targets)
    for target in ("pictures", "base64", "texts"):
        assert rows[target]["accepted"] > 0
        assert rows[target]["refused"]
    assert {"image-truncated", "image-format", "image-animated"} <= set(rows["pictures"]["refused"])


def test_a_number_makes_the_same_input_again():
    fuzzer = fuzz.Fuzzer(PLAN)
    made = [
        [fuzzer._file(np.random.default_rng((0, number))) for number in range(50)] for _ in "ab"
    ]
    assert made[0] == made[1]
    assert len(set(made[0])) == 50


def test_every_file_it_starts_from_is_whole():
    codes = set()
    for data in fuzz.files():
        try:
            codes.add(pictures.decode(data, PLAN.limits).format)
        except problems.Problem as problem:
            codes.add(problem.code)
    assert codes == {"JPEG", "PNG", "WEBP", "image-animated", "image-format"}


def test_a_repaired_png_gets_past_its_checksums():
    rng = np.random.default_rng(0)
    whole = next(data for data in fuzz.files() if data.startswith(fuzz.PNG_MARK))
    assert fuzz.repaired(whole) == whole
    damaged = bytearray(whole)
    damaged[-1] ^= 1
    assert fuzz.repaired(bytes(damaged)) == whole
    for _ in range(100):
        fuzz.repaired(fuzz.edited(rng, whole, whole))


@pytest.mark.parametrize("error", [RuntimeError("boom"), fuzz.Broken("wrong"), fuzz.TooSlow()])
def test_anything_but_a_problem_is_a_failure(monkeypatch, error):
    def fail(data, limits):
        raise error

    monkeypatch.setattr(pictures, "decode", fail)
    found = fuzz.run(PLAN, iter(range(30)))
    assert found["failures"]
    assert type(error).__name__ in found["failures"][0]["error"]


def test_an_input_that_hangs_is_a_failure(monkeypatch):
    def hang(data, limits):
        while True:
            try:
                signal.pause()
            except Exception:  # what a decoder would take for a damaged file
                continue

    monkeypatch.setattr(fuzz, "BOUND_S", 0.05)
    monkeypatch.setattr(pictures, "decode", hang)
    found = fuzz.run(PLAN, iter(range(3)))
    assert any("TooSlow" in failure["error"] for failure in found["failures"])
