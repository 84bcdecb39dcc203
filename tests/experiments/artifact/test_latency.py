"""Medians of calls taken in turn; the files themselves are compared in tests/export."""

from experiments.artifact import latency


def test_calls_take_turns_and_the_first_turn_does_not_count():
    order: list[str] = []
    times = iter([0.0, 9.0, 0.0, 9.0, 0.0, 1.0, 0.0, 5.0, 0.0, 3.0, 0.0, 6.0, 0.0, 2.0, 0.0, 7.0])
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    assert latency.medians(calls, 3, lambda: next(times)) == {"a": 2000.0, "b": 6000.0}
    assert order == ["a", "b"] * 4
