"""Which rule decides, and which rules are refused."""

import pytest

from mmllm.quant import rules

POLICY = (
    rules.Rule(r".*/norm/.*", "float"),
    rules.Rule(r"backbone/.*", "int8"),
    rules.Rule(r".*/kernel", "int2", scale="rms"),
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("backbone/block_3/expand/kernel", POLICY[1]),
        ("decoder/block_0/mlp/up/kernel", POLICY[2]),
        ("decoder/norm/kernel", POLICY[0]),
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
        ((".*", "int3"), r"^weights must be one of float, int2, .* got 'int3'$"),
        ((".*", "int2", "int4"), r"^inputs must be one of float, int8, int8_static, got 'int4'$"),
        (
            (".*", "int2", "int8", "mse"),
            r"^scale must be one of learned, rms, absmean, got 'mse'$",
        ),
    ],
)
def test_a_rule_that_cannot_work_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        rules.Rule(*arguments)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (r".*/norm/.* float", rules.Rule(r".*/norm/.*", "float", "float", "learned")),
        (r".*/kernel  int2 rms", rules.Rule(r".*/kernel", "int2", "float", "rms")),
        (r".*/kernel int2 int8", rules.Rule(r".*/kernel", "int2", "int8", "learned")),
        (r".* float int8_static", rules.Rule(r".*", "float", "int8_static", "learned")),
        (r".* int4 int8 absmean", rules.Rule(r".*", "int4", "int8", "absmean")),
    ],
)
def test_a_rule_is_read_from_a_line(line, expected):
    assert rules.parse([line]) == (expected,)


@pytest.mark.parametrize("line", ["", "kernel", "a int2 int8 rms more"])
def test_a_line_that_is_no_rule_is_refused(line):
    form = r'^a rule must be "PATTERN WEIGHTS \[INPUTS\] \[SCALE\]", got '
    with pytest.raises(ValueError, match=form):
        rules.parse([line])


def test_inputs_are_those_of_the_rule_that_decides():
    policy = rules.parse(("a/.* float", ".* int4 int8"))
    assert rules.inputs_of("a/kernel", policy) == "float"
    assert rules.inputs_of("b/kernel", policy) == "int8"
    assert rules.inputs_of("b/kernel", ()) == "float"
