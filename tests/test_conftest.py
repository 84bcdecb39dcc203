"""The settings of the tests themselves: which data cache a test sees."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmllm.common import paths

HERE = Path(__file__).parent
SETTINGS = """[pytest]
markers = real_cache: reads the machine's own data cache
"""
INNER = """import os
import pytest
from mmllm.common import paths

@pytest.mark.real_cache
def test_real():
    assert str(paths.data_dir()) == os.environ["EXPECTED"]

def test_empty():
    assert not list(paths.data_dir().iterdir())
"""


def test_an_unmarked_test_sees_an_empty_cache_of_this_run():
    assert paths.data_dir().name.startswith("mmllm-tests-")


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [True, False], ids=["MMLLM_DATA", "default"])
def test_a_worker_reads_the_machines_own_cache_where_a_test_asks_for_it(tmp_path, chosen):
    shutil.copy(HERE / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text(SETTINGS)
    (tmp_path / "test_inner.py").write_text(INNER)
    default, own = tmp_path / "caches" / "mmllm", tmp_path / "own"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MMLLM", "PYTEST"))}
    environment |= {"PYTHONPATH": str(HERE.parent), "MMLLM_TYPECHECK": "0"}
    environment |= {"XDG_CACHE_HOME": str(default.parent), "TMPDIR": str(tmp_path)}
    environment |= {"EXPECTED": str(own if chosen else default)}
    environment |= {"MMLLM_DATA": str(own)} if chosen else {}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "1", tmp_path]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "2 passed" in done.stdout, done.stdout
