"""Which rule decides, and which rules are refused."""

import pytest

from mmllm.quant import rules

POLICY = (
    rules.Rule(r".*/norm/.*", "float"),
    rules.Rule(r"backbone/.*", "int8"),
    rules.Rule(r".*/kernel", "int2", "rms"),
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("backbone/block_3/expand/kernel", POLICY[1]),
        ("decoder/block_0/mlp/up/kernel", POLICY[2]),
        ("decoder/norm/kernel", None),  # said to be float
        ("decoder/block_0/mlp/up/bias", None),  # nobody's
        ("my_backbone/kernel_2", None),  # the whole path must match
    ],
)
def test_the_first_rule_that_matches_the_whole_path_decides(path, expected):
    assert rules.find(path, POLICY) is expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("(", "int2"), r"^pattern must be a regular expression, got '\(': "),
        ((".*", "int3"), r"^grid must be one of int2, "),
        ((".*", "int2", "mse"), r"^scale must be one of learned, rms, absmean, got 'mse'$"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        rules.Rule(*arguments)


def test_rules_are_read_from_lines():
    lines = (r".*/norm/.* float", r".*/kernel  int2 rms")
    assert rules.parse(lines) == (
        rules.Rule(r".*/norm/.*", "float"),
        rules.Rule(r".*/kernel", "int2", "rms"),
    )


@pytest.mark.parametrize("line", ["", "kernel", "a int2 rms more"])
def test_a_line_that_is_no_rule_is_refused(line):
    with pytest.raises(ValueError, match=r'^a rule must be "PATTERN GRID \[SCALE\]", got '):
        rules.parse([line])
