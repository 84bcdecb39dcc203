"""Where a number comes from: commit, command, machine and versions, for every result file."""

import datetime
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
GENERATED = ("experiments/results", "experiments/figures", "README.md", "PAPER.md")
PACKAGES = ("mmllm", "jax", "jaxlib", "flax", "ai-edge-litert", "numpy", "pillow", "sentencepiece")


def _git(*arguments: str) -> str | None:
    """Output of git in the repository; None outside one or without git."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def source_state() -> dict[str, Any]:
    """Commit, and whether tracked files differ from it; generated numbers do not count.

    Returns:
      {"commit": hex or None outside a repository, "dirty": bool or None}.
    """
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    paths = [f":(exclude){path}" for path in GENERATED]
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *paths)
    return {"commit": commit, "dirty": changed is None or bool(changed)}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages a score depends on, as far as installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def device() -> dict[str, Any]:
    """Processor and number of cores this process may use."""
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
