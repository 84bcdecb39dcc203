"""The commit is read from the repository, and unknown outside one."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mmllm.common import provenance


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a repository with one committed file and a README."""
    for name in ("code.py", "README.md"):
        (tmp_path / name).write_text("x")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    return tmp_path


def test_a_clean_tree_has_a_commit(repository: Path):
    state = provenance.source_state()
    assert re.fullmatch("[0-9a-f]{40}", state["commit"])
    assert state["dirty"] is False


def test_a_changed_file_makes_it_dirty_and_a_generated_one_does_not(repository: Path):
    (repository / "README.md").write_text("tables")
    (repository / "new.txt").write_text("untracked")
    assert provenance.source_state()["dirty"] is False
    (repository / "code.py").write_text("y")
    assert provenance.source_state()["dirty"] is True


def test_outside_a_repository_the_commit_is_unknown(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    assert provenance.source_state() == {"commit": None, "dirty": None}


def test_versions_are_those_that_are_installed():
    found = provenance.versions()
    assert found["numpy"] == np.__version__
    assert set(found) <= {"python", *provenance.PACKAGES}
