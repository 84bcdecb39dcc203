"""Layer by layer: one that is wrong is named."""

import dataclasses

import numpy as np
import pytest

from mmllm.export.targets.litert import codes, convert
from mmllm.parity import layers, report, samples
from mmllm.parity.rows import ParityError
from mmllm.quant.coded import Coded
from mmllm.runtime.model import MobileMultiModalLLM
from tests.parity.test_report import RIGHT


@pytest.mark.export
@pytest.mark.slow
def test_a_layer_with_a_wrong_scale_is_named(made, compared, monkeypatch):
    path = "decoder/block_1/mlp/up/kernel"
    right = made.bundle.coded[path]
    wrong = Coded(right.codes, right.scale * np.float32(1.05), right.grid)
    put = codes.put_codes

    def put_wrong(file, coded, folded):
        found = put(file, coded, folded)
        return found.replace(right.scale.tobytes(), wrong.scale.tobytes())

    monkeypatch.setattr(convert, "convert", lambda found: compared[1])
    monkeypatch.setattr(codes, "put_codes", put_wrong)
    model = samples.of_inputs(MobileMultiModalLLM.from_pretrained(made.folder, "jax"), compared[2])
    rows = layers.layers(made.bundle, model, threads=1)
    assert {row.name for row in rows if not row.good} == {"decoder/block_1", "decoder/block_1.step"}
    with pytest.raises(ParityError, match="^layer decoder/block_1: LiteRT differs"):
        report.check(RIGHT | {"layers": [dataclasses.asdict(row) for row in rows]})
