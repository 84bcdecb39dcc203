"""The rows of configs/quant/ablation.py as configs to measure, and as labels of the table."""

from collections.abc import Iterator, Sequence

from configs.quant import ablation
from mmllm.common import config as config_lib
from mmllm.common.config import Config

FLOAT_START = "float_start"
PTQ = "_ptq"
"""Ending of a row that quantizes the float model and trains nothing."""


def jobs(rows: Sequence[str], seeds: Sequence[int] | None = None) -> Iterator[tuple[str, int]]:
    """Row and seed; with seed 0 also the float start, and the PTQ of rows that have one.

    Args:
      rows: names of `ablation.ROWS`.
      seeds: those to run, of the seeds that a row has; None runs them all.
    """
    if seeds is None or 0 in seeds:
        yield FLOAT_START, 0
        yield from ((row + PTQ, 0) for row in rows if ablation.ROWS[row]["ptq"])
    most = max(ablation.ROWS[row]["seeds"] for row in rows)
    # All rows once before any twice: a stopped run leaves a whole table.
    for seed in range(most) if seeds is None else seeds:
        for row in rows:
            if seed < ablation.ROWS[row]["seeds"]:
                yield row, seed


def config_of(row: str, seed: int) -> Config:
    """The config that a row trains, or quantizes, with.

    Raises:
      ValueError: no such row.
    """
    cfg = ablation.get_config("float" if row == FLOAT_START else row.removesuffix(PTQ))
    cfg.seed = seed
    cfg.name = f"{cfg.name}_{seed}"
    return config_lib.resolve(cfg)


def trains(row: str) -> bool:
    """Whether a row trains anything."""
    return row != FLOAT_START and not row.endswith(PTQ)


def labels() -> dict[str, tuple[str, str]]:
    """Row -> bits and what is special, in the order of the table."""
    found = {FLOAT_START: ("float", "the model that all others start from")}
    for name, row in ablation.ROWS.items():
        if row["ptq"]:
            found[name + PTQ] = (row["bits"], row["ptq"])
        found[name] = (row["bits"], row["what"])
    return found
