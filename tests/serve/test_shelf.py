"""The shelf: one open index, that of the model which asks."""

from pathlib import Path

import numpy as np
import pytest

from mmllm.serve import problems, shelf

ONE, OTHER = "1" * 64, "2" * 64


def test_each_model_finds_its_own_index_again(settings):
    held = shelf.Shelf(settings)
    assert len(held) == 0
    held.index(ONE, 4).add("a", np.ones(4, np.float32), {})
    assert held.index(ONE, 4) is held.index(ONE, 4)
    assert len(held) == 1
    assert len(held.index(OTHER, 8)) == 0
    assert len(held.index(ONE, 4)) == 1
    held.close()
    assert len(held) == 0


def test_an_index_that_cannot_be_opened_is_tried_again(make_settings, tmp_path: Path):
    wall = tmp_path / "wall"
    wall.write_text("in the way")
    held = shelf.Shelf(make_settings(index_path=wall / "index.sqlite"))
    with pytest.raises(problems.Problem, match="index-unavailable"):
        held.index(ONE, 4)
    wall.unlink()
    assert len(held.index(ONE, 4)) == 0
    held.close()
