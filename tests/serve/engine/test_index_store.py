"""The store: one open index, that of the model which asks."""

from pathlib import Path

import numpy as np
import pytest

from mmllm.serve import problems
from mmllm.serve.engine import index_store

ONE, OTHER = "1" * 64, "2" * 64


def test_each_model_finds_its_own_index_again(settings):
    held = index_store.IndexStore(settings)
    assert len(held) == 0
    held.open(ONE, 4).add("a", np.ones(4, np.float32), {})
    assert held.open(ONE, 4) is held.open(ONE, 4)
    assert len(held) == 1
    assert len(held.open(OTHER, 8)) == 0
    assert len(held.open(ONE, 4)) == 1
    held.close()
    assert len(held) == 0


def test_an_index_that_cannot_be_opened_is_tried_again(make_settings, tmp_path: Path):
    wall = tmp_path / "wall"
    wall.write_text("in the way")
    held = index_store.IndexStore(make_settings(index_path=wall / "index.sqlite"))
    with pytest.raises(problems.Problem, match="index-unavailable"):
        held.open(ONE, 4)
    wall.unlink()
    assert len(held.open(ONE, 4)) == 0
    held.close()
