"""Which parameter lies on which grid: the first rule whose pattern matches its path decides."""

import dataclasses
import re
from collections.abc import Sequence

from mmllm.quant import grid as grid_lib
from mmllm.quant import scale as scale_lib

FLOAT = "float"
LEARNED = "learned"


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of a policy.

    Attributes:
      pattern: regular expression that must match the whole path, such as
        "decoder/block_0/mlp/up/kernel".
      grid: a name of `grid.GRIDS`, or "float" to leave the parameter as it is.
      scale: "learned", or "rms" or "absmean" for a statistic taken anew in every step.
    """

    pattern: str
    grid: str
    scale: str = LEARNED

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(
                f"pattern must be a regular expression, got {self.pattern!r}: {error}"
            ) from error
        if self.grid != FLOAT:
            grid_lib.find(self.grid)
        kinds = (LEARNED, *(name for name in scale_lib.INITIAL if name != "mse"))
        if self.scale not in kinds:
            raise ValueError(f"scale must be one of {', '.join(kinds)}, got {self.scale!r}")


def parse(lines: Sequence[str]) -> tuple[Rule, ...]:
    """Rules as a config writes them, "PATTERN GRID [SCALE]" each.

    Raises:
      ValueError: a line of another form, or a rule that cannot work.
    """
    rules = []
    for line in lines:
        parts = line.split()
        if not 2 <= len(parts) <= 3:
            raise ValueError(f'a rule must be "PATTERN GRID [SCALE]", got {line!r}')
        rules.append(Rule(*parts))
    return tuple(rules)


def find(path: str, rules: Sequence[Rule]) -> Rule | None:
    """The rule of a parameter; None where it stays float.

    Args:
      path: names joined by "/".
      rules: in order of precedence.
    """
    for rule in rules:
        if re.fullmatch(rule.pattern, path):
            return None if rule.grid == FLOAT else rule
    return None
