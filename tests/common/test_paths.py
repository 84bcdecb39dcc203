import subprocess
import sys
from pathlib import Path

import pytest

from mmllm.common import paths


def test_the_environment_variable_chooses_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path))
    assert paths.data_dir() == tmp_path


def test_the_default_cache_is_below_the_users_cache_folder(monkeypatch):
    monkeypatch.delenv("MMLLM_DATA")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert paths.data_dir() == Path.home() / ".cache" / "mmllm"


def test_a_file_appears_only_when_written_whole(tmp_path):
    target = tmp_path / "new" / "scores.json"
    with paths.written_whole(target) as file:
        file.write_text("1")
        assert not target.exists()
    assert target.read_text() == "1"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "scores.json"
    target.write_text("old")

    def write_half():
        with paths.written_whole(target) as file:
            file.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


KILLED = """
import os, signal, sys
from pathlib import Path
from mmllm.common import paths
with paths.written_whole(Path(sys.argv[1])) as file:
    file.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next_write_of_that_file(tmp_path):
    for name in ("features.npy", "other.npy"):
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / name)])
    assert len(list(tmp_path.iterdir())) == 2
    with paths.written_whole(tmp_path / "features.npy") as file:
        file.write_text("whole")
    (left,) = (path.name for path in tmp_path.iterdir() if path.name != "features.npy")
    assert left.startswith(".")
    assert left.endswith(".other.npy")


def test_two_living_writers_do_not_touch_each_others_files(tmp_path):
    target = tmp_path / "features.npy"
    with paths.written_whole(target) as first:
        first.write_text("first")
        with paths.written_whole(target) as second:
            second.write_text("second")
        assert target.read_text() == "second"
    assert target.read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


def test_a_device_or_folder_is_never_replaced(tmp_path):
    for target in (Path("/dev/null"), tmp_path):
        with (
            pytest.raises(ValueError, match="must be a file to write"),
            paths.written_whole(target),
        ):
            pass
    assert Path("/dev/null").is_char_device()
    assert tmp_path.is_dir()
