"""Where something was made: the commit of the source and the versions of what it ran with."""

import platform
import subprocess
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
    # Experiments write these as they run; they change nothing that is measured.
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
