"""The two engines of a bundle side by side."""

import dataclasses
import json

import numpy as np
import pytest

from mmllm.export import litert, parity
from mmllm.quant.coded import Coded
from mmllm.runtime import compare
from mmllm.runtime.model import MobileMultiModalLLM
from tests.export.test_parity import RIGHT


def test_the_sample_has_pictures_and_lines():
    inputs = compare.shipped_sample()
    assert len(inputs.pictures) == len(inputs.texts) == 38
    assert len(inputs.lines) == 10
    assert all(path.is_file() for path in (*inputs.pictures, *inputs.lines))


@pytest.fixture(scope="module")
def tapped(made):
    """What the tiny bundle measures, and the float file with its layers."""
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 255, (5, 32, 32, 3), np.uint8))
    lines = list(rng.integers(0, 255, (3, 8, 64, 3), np.uint8))
    inputs = compare.Inputs(pictures, lines, ["a red bus", "two dogs", "cat"])
    files = []
    with pytest.MonkeyPatch.context() as patch:
        convert = litert.convert
        patch.setattr(litert, "convert", lambda found: files.append(convert(found)) or files[0])
        measured = compare.measure(made.folder, inputs, threads=1)
    return measured, files[0], inputs


@pytest.mark.export
@pytest.mark.slow
def test_the_file_of_a_bundle_agrees_with_jax_and_the_report_is_written(made, tapped, tmp_path):
    measured = tapped[0]
    parity.check(measured)
    names = [row["name"] for row in measured["layers"]]
    assert {"encoder/block_0", "decoder/block_1.step", "line_tokens", "text_tower/project"} <= {
        *names
    }
    assert measured["answers"] == 10
    assert measured["file"]["sha256"] == made.bundle.manifest["files"]["model.cpu.tflite"]
    written = parity.write(measured, tmp_path / "report")
    assert json.loads(written[0].read_text()) == measured
    assert all(f"| {name} |" in written[1].read_text() for name in names)
    assert parity.summary(measured).startswith(f"parity: {len(names)} layers within ")


@pytest.mark.export
@pytest.mark.slow
def test_a_layer_with_a_wrong_scale_is_named(made, tapped, monkeypatch):
    path = "decoder/block_1/mlp/up/kernel"
    right = made.bundle.coded[path]
    wrong = Coded(right.codes, right.scale * np.float32(1.05), right.grid)
    put = litert.put_codes

    def put_wrong(file, coded, folded):
        found = put(file, coded, folded)
        return found.replace(right.scale.tobytes(), wrong.scale.tobytes())

    monkeypatch.setattr(litert, "convert", lambda found: tapped[1])
    monkeypatch.setattr(litert, "put_codes", put_wrong)
    model = compare.sample(MobileMultiModalLLM.from_pretrained(made.folder, "jax"), tapped[2])
    rows = parity.layers(made.bundle, model, threads=1)
    assert {row.name for row in rows if not row.good} == {"decoder/block_1", "decoder/block_1.step"}
    with pytest.raises(parity.ParityError, match="^layer decoder/block_1: LiteRT differs"):
        parity.check(RIGHT | {"layers": [dataclasses.asdict(row) for row in rows]})
