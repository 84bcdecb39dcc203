"""Where a number comes from: commit, command, machine and versions, for every result file."""

import datetime
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from mmllm.common.provenance import REPOSITORY, source_state, versions

__all__ = ["REPOSITORY", "command", "device", "record", "source_state", "versions"]


def device() -> dict[str, Any]:
    """Processor and number of cores this process may use."""
    # Not cpu_count() where this exists: `taskset` and containers lend fewer.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"kind": "cpu", "processor": _processor(), "cores": cores, "system": platform.system()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def command() -> str:
    """The command line: programs and paths outside the home folder by their bare name, it as ~."""
    program = Path(sys.argv[0]).name or "python"
    # Results are published: a path of this machine tells a reader nothing.
    arguments = [argument.replace(str(Path.home()), "~") for argument in sys.argv[1:]]
    arguments = [Path(each).name if each.startswith("/") else each for each in arguments]
    return shlex.join([program, *arguments])


def record() -> dict[str, Any]:
    """Everything above and the date (UTC, to the second), ready for JSON."""
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return {
        "date": now.isoformat(),
        "command": command(),
        "git": source_state(),
        "device": device(),
        "versions": versions(),
    }
