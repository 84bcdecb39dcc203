"""Coded weights stand for the floats worked by hand."""

import numpy as np

from mmllm.quant.coded import Coded, floats, is_table


def test_a_kernel_comes_back_with_its_inputs_first():
    coded = Coded(np.array([[1, -2, 0], [-1, 1, 1]], np.int8), np.float32([2.0, 0.5]), "int2")
    expected = [[2.0, -0.5], [-4.0, 0.5], [0.0, 0.5]]
    np.testing.assert_array_equal(floats("decoder/up/kernel", coded), np.float32(expected))


def test_a_table_keeps_one_row_a_token():
    coded = Coded(np.array([[1, -2, 0], [-1, 1, 1]], np.int8), np.float32([2.0, 0.5]), "seq")
    expected = [[3.0, -3.0, 1.0], [-0.25, 0.75, 0.75]]
    np.testing.assert_array_equal(floats("embed/table", coded), np.float32(expected))


def test_only_a_table_has_its_output_channels_first():
    assert is_table("embed/table")
    assert not is_table("table/kernel")
