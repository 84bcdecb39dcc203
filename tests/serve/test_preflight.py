import os
from pathlib import Path

import pytest

from mmllm.serve import preflight


def test_places_that_can_be_written_are_left_as_they_were(make_settings, tmp_path: Path):
    log, index = tmp_path / "log", tmp_path / "a" / "b" / "index.sqlite"
    log.write_text("a line\n")
    preflight.check(make_settings(log_file=log, index_path=index))
    assert log.read_text() == "a line\n"
    assert list(index.parent.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "log"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("log_file", "nothing/log"),
        ("log_file", "folder"),
        ("log_file", "/proc/log"),
        ("index_path", "/proc/x/index.sqlite"),
        ("index_path", "folder"),
        ("index_path", "file/index.sqlite"),
    ],
)
def test_a_place_that_cannot_be_written_is_named(make_settings, tmp_path: Path, name, path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=name.upper() + "|" + name) as caught:
        preflight.check(make_settings(**{name: tmp_path / path}))
    assert path in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_file_of_others_is_named(make_settings, tmp_path: Path):
    (tmp_path / "log").touch(mode=0o400)
    with pytest.raises(ValueError, match="MMLLM_LOG_FILE"):
        preflight.check(make_settings(log_file=tmp_path / "log"))


def test_an_index_that_may_hold_nothing_needs_no_place(make_settings):
    preflight.check(make_settings(index_path=Path("/proc/x/index.sqlite"), index_items=0))
