"""LiteRT against JAX: what is right passes, and a layer that is wrong is named."""

import copy
import json

import pytest

from mmllm.parity import report
from mmllm.parity.rows import ParityError

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


def test_what_is_near_enough_passes_and_rows_without_a_limit_are_shown_only():
    report.check(RIGHT)
    assert "| itself | 4 | 5.0e-01 | 9.0e-01 | - |" in report.markdown(RIGHT)


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
    with pytest.raises(ParityError, match=message):
        report.check(measured)


def test_fewer_same_answers_are_allowed_where_jax_differs_from_itself():
    same = {"same image tokens": 0.96, "same image tokens, JAX against itself": 0.965}
    report.check(changed("tokens", None, **same))


@pytest.mark.export
@pytest.mark.slow
def test_the_file_of_a_bundle_agrees_with_jax_and_the_report_is_written(made, compared, tmp_path):
    measured = compared[0]
    report.check(measured)
    names = [row["name"] for row in measured["layers"]]
    assert {"encoder/block_0", "decoder/block_1.step", "line_tokens", "text_tower/project"} <= {
        *names
    }
    assert measured["answers"] == 10
    assert measured["file"]["sha256"] == made.bundle.manifest["files"]["model.cpu.tflite"]
    written = report.write(measured, tmp_path / "report")
    assert json.loads(written[0].read_text()) == measured
    assert all(f"| {name} |" in written[1].read_text() for name in names)
    assert report.summary(measured).startswith(f"parity: {len(names)} layers within ")
