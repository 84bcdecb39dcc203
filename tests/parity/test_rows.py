"""How far two arrays are apart, worked by hand."""

import numpy as np
import pytest

from mmllm.parity import rows


def test_the_error_of_a_vector_is_relative_to_its_norm():
    target = np.array([[3.0, 4.0], [30.0, 40.0], [0.0, 0.0]])
    prediction = target + np.array([[0.0, 0.5], [0.0, 0.0], [0.0, 0.55]])
    # The last vector counts as a tenth of the mean norm, 55 / 3.
    np.testing.assert_allclose(rows.relative(prediction, target), [0.1, 0.0, 0.3])
    with pytest.raises(rows.ParityError, match=r"shape \(2,\) differs from \(3,\)"):
        rows.relative(np.ones(2), np.ones(3))
    with pytest.raises(rows.ParityError, match="not finite"):
        rows.relative(np.array([np.nan]), np.ones(1))


def test_the_worst_of_several_outputs_counts():
    right, wrong = (np.ones((4, 2)), np.ones((4, 2))), (np.full((4, 2), 1.5), np.ones((4, 2)))
    row = rows.row_of("block", 4, [right, wrong, right])
    assert (row.median, row.largest) == (pytest.approx(0.5), pytest.approx(0.5))
    assert not row.good
