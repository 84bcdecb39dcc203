"""Which layer is quantized, and how: the first rule that matches its weight's path decides.

One rule holds all there is to say of a layer: the grid of its weights, the rounding of its inputs
and where its scales come from. Source: `QuantizationRule` of qwix.
"""

import dataclasses
import re
from collections.abc import Sequence

from mmllm.quant import grid as grid_lib

FLOAT = "float"
INT8 = "int8"
INT8_STATIC = "int8_static"
LEARNED = "learned"
INPUTS = (FLOAT, INT8, INT8_STATIC)
"""Inputs as they are, rounded per token (a range for each row), or per tensor (one range found by
calibration)."""
SCALES = (LEARNED, "rms", "absmean")
"""Learned with the weights, or a statistic of `quant.scale`. That needs JAX, and runtimes that read
rules do not, so it is not imported here."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of a policy.

    Attributes:
      pattern: regular expression that must match the whole path of a weight, such as
        "decoder/block_0/mlp/up/kernel".
      weights: a name of `grid.GRIDS`, or "float" to leave them as they are.
      inputs: a name of INPUTS: how the layer rounds what it multiplies with the weights.
      scale: "learned", or "rms" or "absmean" for a statistic taken anew in every step.
    """

    pattern: str
    weights: str
    inputs: str = FLOAT
    scale: str = LEARNED

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(
                f"pattern must be a regular expression, got {self.pattern!r}: {error}"
            ) from error
        if self.weights not in (FLOAT, *grid_lib.GRIDS):
            raise ValueError(
                f"weights must be one of {', '.join((FLOAT, *grid_lib.GRIDS))}, "
                f"got {self.weights!r}"
            )
        for name, allowed in (("inputs", INPUTS), ("scale", SCALES)):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")

    @property
    def is_float(self) -> bool:
        """Whether it leaves weights and inputs as they are."""
        return self.weights == self.inputs == FLOAT


def parse(lines: Sequence[str]) -> tuple[Rule, ...]:
    """Rules as a config writes them, "PATTERN WEIGHTS [INPUTS] [SCALE]" each.

    Raises:
      ValueError: a line of another form, or a rule that cannot work.
    """
    rules = []
    for line in lines:
        parts = line.split()
        # Inputs and scales have no name in common, so inputs may be left out before a scale.
        if len(parts) == 3 and parts[2] in SCALES:
            parts.insert(2, FLOAT)
        if not 2 <= len(parts) <= 4:
            raise ValueError(f'a rule must be "PATTERN WEIGHTS [INPUTS] [SCALE]", got {line!r}')
        rules.append(Rule(*parts))
    return tuple(rules)


def find(path: str, rules: Sequence[Rule]) -> Rule | None:
    """The rule of a weight; None where no pattern matches, which is as if it were float.

    Args:
      path: names joined by "/".
      rules: in order of precedence.
    """
    return next((rule for rule in rules if re.fullmatch(rule.pattern, path)), None)


def inputs_of(path: str, rules: Sequence[Rule]) -> str:
    """How a layer rounds its inputs, a name of INPUTS, by the path of its weight."""
    rule = find(path, rules)
    return FLOAT if rule is None else rule.inputs
