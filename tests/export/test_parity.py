"""LiteRT against JAX: what is right passes, and a layer that is wrong is named."""

import copy

import numpy as np
import pytest

from mmllm.export import parity

RIGHT = {
    "file": {"name": "model.cpu.tflite", "sha256": "0"},
    "answers": 8,
    "layers": [
        {"name": "encoder/block_0", "samples": 4, "median": 1e-6, "largest": 1e-3, "allowed": 1e-3}
    ],
    "outputs": [
        {"name": "prefill", "samples": 4, "median": 1e-6, "largest": 1e-2, "allowed": 1e-3},
        {"name": "itself", "samples": 4, "median": 0.5, "largest": 0.9, "allowed": None},
    ],
    "tokens": {
        "same image tokens": 1.0,
        "same image tokens, JAX against itself": 1.0,
        "same pictures": 0.5,
        "same pictures, JAX against itself": 0.5,
    },
}


def changed(kind: str, place: object, **values: object) -> dict:
    found = copy.deepcopy(RIGHT)
    (found[kind] if place is None else found[kind][place]).update(values)
    return found


def test_the_error_of_a_vector_is_relative_to_its_norm():
    wanted = np.array([[3.0, 4.0], [30.0, 40.0], [0.0, 0.0]])
    got = wanted + np.array([[0.0, 0.5], [0.0, 0.0], [0.0, 0.55]])
    # The last vector counts as a tenth of the mean norm, 55 / 3.
    np.testing.assert_allclose(parity.relative(got, wanted), [0.1, 0.0, 0.3])
    with pytest.raises(parity.ParityError, match=r"shape \(2,\) differs from \(3,\)"):
        parity.relative(np.ones(2), np.ones(3))
    with pytest.raises(parity.ParityError, match="not finite"):
        parity.relative(np.array([np.nan]), np.ones(1))


def test_the_worst_of_several_outputs_counts():
    right, wrong = (np.ones((4, 2)), np.ones((4, 2))), (np.full((4, 2), 1.5), np.ones((4, 2)))
    row = parity.row_of("block", 4, [right, wrong, right])
    assert (row.median, row.largest) == (pytest.approx(0.5), pytest.approx(0.5))
    assert not row.good


def test_what_is_near_enough_passes_and_rows_without_a_limit_are_shown_only():
    parity.check(RIGHT)
    assert "| itself | 4 | 5.0e-01 | 9.0e-01 | - |" in parity.markdown(RIGHT)


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        (changed("layers", 0, median=0.002), "layer encoder/block_0: LiteRT differs .* 0.002 of"),
        (changed("layers", 0, largest=0.06), r"layer encoder/block_0: .*largest of 4: 0.06"),
        (changed("outputs", 0, median=0.002), "output prefill: "),
        (changed("tokens", None, **{"same image tokens": 0.97}), r"decoder: 97.0% of 8 answers"),
        (changed("tokens", None, **{"same pictures": 0.44}), r"model: 44.0% of 8 answers"),
        (
            changed(
                "tokens",
                None,
                **{"same image tokens": 0.9, "same image tokens, JAX against itself": 0.9},
            ),
            r"decoder: 90.0% .* at least 95.0% must be",
        ),
    ],
)
def test_what_is_too_far_off_is_named(measured, message):
    with pytest.raises(parity.ParityError, match=message):
        parity.check(measured)


def test_fewer_same_answers_are_allowed_where_jax_differs_from_itself():
    same = {"same image tokens": 0.96, "same image tokens, JAX against itself": 0.965}
    parity.check(changed("tokens", None, **same))


def test_moved_inputs_are_next_to_the_others():
    inputs = np.linspace(1, 255, 1000, dtype=np.float32)
    moved = parity.moved(inputs)
    assert moved.dtype == np.float32
    assert 0.4 < np.mean(moved != inputs) < 0.6
    np.testing.assert_allclose(moved, inputs, rtol=6e-7)
