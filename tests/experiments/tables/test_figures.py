"""The figure of the quantized rows: labels in columns, moved apart."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.tables import figures


def test_quantized_rows_are_drawn(tmp_path: Path):
    rows = [
        {"row": name, "seed": seed, "bytes": size, "average": average}
        for name, seed, size, average in (
            ("int2", 0, 5_000_000, 0.5),
            ("int2", 1, 5_000_000, 0.52),
            ("int2_ptq", 0, 5_000_000, 0.1),
        )
    ]
    path = tmp_path / "quantization.png"
    figures.draw_quantization({"rows": rows}, path)
    with Image.open(path) as image:
        assert image.size == (840, 600)


def test_neighbouring_sizes_share_a_column_of_labels_on_one_side_of_the_crowded_one():
    assert figures._columns([399, 452, 483, 488, 492, 526, 829, 830], 488) == [
        [399],
        [452, 483, 488],
        [492, 526],
        [829, 830],
    ]


def test_labels_are_moved_apart_and_lonely_ones_stay():
    moved = figures._apart([0.5, 0.1, 0.101, 0.099], 0.05)
    assert moved[0] == 0.5
    assert sorted(moved[1:]) == [moved[3], moved[1], moved[2]]
    gaps = np.diff([moved[3], moved[1], moved[2]])
    assert gaps == pytest.approx([0.05, 0.05], abs=1e-3)
    assert np.mean(moved[1:]) == pytest.approx(0.1, abs=1e-3)
