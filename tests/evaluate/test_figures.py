"""Figures are written whole, look the same twice, and refuse logs without losses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmllm.evaluate import figures

RESULT: dict[str, Any] = {
    "rows": [
        {
            "name": "vqa/easy_vqa/test",
            "task": "vqa",
            "corpus": "easy_vqa",
            "split": "test",
            "language": "en",
            "counts": {},
            "metrics": {"accuracy": {"value": 0.9, "unit": "share", "n": 5, "std": 0.02}},
            "baselines": {"blind": {"accuracy": {"value": 0.4, "unit": "share", "n": 5, "std": 0}}},
        }
    ]
}


def written_losses(path: Path) -> Path:
    rows = [{"step": step, "loss/vqa": 2.0 / step, "loss/caption": None} for step in range(1, 9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_scores_are_drawn_the_same_twice(tmp_path: Path):
    pictures = []
    for name in ("a.png", "b.png"):
        figures.draw_scores(RESULT, tmp_path / name)
        with Image.open(tmp_path / name) as picture:
            pictures.append(np.array(picture.convert("RGB")))
    assert np.array_equal(pictures[0], pictures[1])
    assert len(np.unique(pictures[0])) > 10
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_losses_are_read_by_task_without_missing_values(tmp_path: Path):
    curves = figures.read_losses(written_losses(tmp_path / "metrics.jsonl"))
    assert list(curves) == ["vqa"]
    assert curves["vqa"][:2] == [(1, 2.0), (2, 1.0)]


def test_losses_are_drawn(tmp_path: Path):
    figures.draw_losses(written_losses(tmp_path / "metrics.jsonl"), tmp_path / "loss.png")
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.size == (840, 432)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "holds no losses"), ('{"step": 1}\n', "holds no losses"), ("{\n", "line 1 is not JSON")],
)
def test_a_log_without_losses_is_refused(tmp_path: Path, text: str, message: str):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        figures.read_losses(path)
