"""Whole signatures of two engines side by side."""

import numpy as np
import pytest

from mmllm.parity import outputs
from mmllm.parity.samples import Samples
from mmllm.runtime.model import MobileMultiModalLLM
from tests import tiny_bundle

C = tiny_bundle.CONFIG


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory):
    folder = tiny_bundle.make(tmp_path_factory.mktemp("bundles") / "tiny")
    return MobileMultiModalLLM.from_pretrained(folder).engine


@pytest.fixture(scope="module")
def samples() -> Samples:
    rng = np.random.default_rng(0)
    return Samples(
        rng.uniform(0, 255, (2, C.image_side, C.image_side, 3)).astype(np.float32),
        rng.uniform(0, 255, (2, C.line_height, C.line_width)).astype(np.float32),
        np.array([[5, 60, 7, 0], [5, 61, 62, 7]], np.int32),
        np.array([[8, 0, 0, 0]], np.int32),
    )


class Wrong:
    """An engine whose text tower is off by a tenth."""

    def __init__(self, engine):
        self.engine = engine

    def __getattr__(self, name: str):
        return getattr(self.engine, name)

    def embed_text(self, ids: np.ndarray) -> np.ndarray:
        return self.engine.embed_text(ids) * 1.1


def test_an_engine_agrees_with_itself(engine, samples: Samples):
    rows = outputs.outputs(engine, engine, samples)
    assert all(row.good for row in rows)
    assert [row.name for row in rows if row.allowed is not None] == [
        "embed_text",
        "read_lines",
        "embed_image",
        "encode_image",
        "prefill",
        "decode_step",
    ]


def test_a_signature_that_is_off_is_named(engine, samples: Samples):
    rows = outputs.outputs(Wrong(engine), engine, samples)
    assert [row.name for row in rows if not row.good] == ["embed_text"]
