"""Runs the rows of an experiment: skips what is finished, measures the rest, writes each at once.

An experiment is a list of `rows.Row` and a function row -> figures. `run` adds where the figures
come from (commit, date, command, machine, versions, seconds) and writes results/KIND.json after
each row, so that a run that is stopped goes on where it was. Several may run at once.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

from experiments import rows as rows_lib
from experiments.rows import Row
from mmllm.common import paths
from mmllm.evaluate import provenance

Measure = Callable[[Row], dict[str, Any]]


def parser(
    document: str | None, names: Sequence[str] = (), *, resumes: bool = False
) -> argparse.ArgumentParser:
    """The options that all experiments share.

    Args:
      document: docstring of the module; its first line describes the command.
      names: rows to choose from; without any there is no --rows.
      resumes: whether the experiment leaves out finished rows, unless --again is given.
    """
    made = argparse.ArgumentParser(description=(document or "").splitlines()[0])
    made.add_argument("--smoke", action="store_true", help="in seconds; nothing is written")
    if names:
        made.add_argument(
            "--rows",
            nargs="+",
            choices=list(names),
            default=list(names),
            metavar="ROW",
            help=f"of {', '.join(names)} (all)",
        )
    if resumes:
        made.add_argument("--again", action="store_true", help="finished rows are measured anew")
    return made


def run(
    kind: str,
    rows: Sequence[Row],
    measure: Measure,
    *,
    resume: bool = False,
    smoke: bool = False,
    after: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Measures rows and writes each one when it is there.

    Args:
      kind: of result; names its file.
      rows: what to measure, in this order.
      measure: the figures of a row, ready for JSON.
      resume: leaves out rows that are finished; timings are taken anew each time instead.
      smoke: measures without writing.
      after: gets the whole result after each row, to draw a figure.
    """
    source = provenance.source_state()  # of the code that runs, whatever is committed meanwhile
    for row in rows:
        label = "_".join(str(value) for value in row.key.values()).replace("/", "-")
        # Whoever waits here finds the row finished.
        with rows_lib.lock(paths.data_dir() / "runs" / f"{kind}_{label}.lock"):
            # Read under the lock, and for each row: others may have finished it meanwhile.
            if resume and not smoke and rows_lib.is_finished(row, rows_lib.read(kind)["rows"]):
                continue
            print(f"== {kind}: {label}", flush=True)
            begun = time.monotonic()  # the clock of the wall may be set while a row runs for hours
            fields = measure(row)
            if smoke:  # its figures mean nothing, so they never reach a table
                continue
            seconds = round(time.monotonic() - begun)
            # A measurement's own seconds (of load, say) win over those of the run.
            record = {**provenance.record(), "git": source, "seconds": seconds}
            result = rows_lib.write(kind, row, {**record, **fields})
            if after is not None:
                after(result)
