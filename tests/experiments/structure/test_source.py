"""Files, rooms and imports of a checkout."""

import subprocess
from pathlib import Path

import pytest

from experiments.structure import source
from tests.experiments.structure import houses

REPOSITORY = Path(__file__).resolve().parents[3]


def test_an_import_is_a_file_whichever_way_it_is_written(tmp_path):
    modules = houses.build(
        tmp_path,
        {
            "mmllm/common/paths.py": "",
            "mmllm/quant/grid.py": "GRID = 1",
            "mmllm/train/loop.py": "from mmllm.common import paths\n"
            "def f():\n    from mmllm.quant.grid import GRID\n    import numpy\n",
        },
    )
    found = source.imported(modules, "mmllm/train/loop.py")
    assert found == {"mmllm/common/paths.py", "mmllm/quant/grid.py"}
    assert source.room_imports(modules) == {("train", "common"): 1, ("train", "quant"): 1}


@pytest.mark.parametrize(
    ("path", "room"),
    [
        ("mmllm/data/corpora/emoji.py", "data"),
        ("configs/base.py", "configs"),
        ("mmllm/cli.py", None),
    ],
)
def test_a_file_stands_in_the_room_its_folder_names(path, room):
    assert source.room(path) == room


def test_every_room_of_this_tree_has_its_place():
    here = {path.name for path in (REPOSITORY / "mmllm").iterdir() if any(path.glob("*.py"))}
    assert here <= set(source.ROOMS)


def test_a_commit_is_read_as_it_was(tmp_path):
    houses.build(tmp_path, {"mmllm/a.py": "old = 1\n"})
    author = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    for arguments in (["init", "--quiet"], ["add", "."], [*author, "commit", "-qm", "First"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    houses.build(tmp_path, {"mmllm/a.py": "new = 2\n"})
    with source.checked_out(tmp_path, "HEAD") as root:
        assert source.read(root)["mmllm/a.py"].text == "old = 1\n"
    with (
        pytest.raises(ValueError, match="commit 'nowhere' cannot be read"),
        source.checked_out(tmp_path, "nowhere"),
    ):
        pass


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="must be a checkout"):
        source.read(tmp_path)
