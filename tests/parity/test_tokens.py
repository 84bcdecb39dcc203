"""The share of answers that are the same token for token."""

import numpy as np
import pytest

from mmllm.parity import tokens
from mmllm.parity.samples import Samples
from mmllm.runtime.model import MobileMultiModalLLM
from tests import tiny_bundle

C = tiny_bundle.CONFIG
ROWS = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MobileMultiModalLLM:
    folder = tiny_bundle.make(tmp_path_factory.mktemp("bundles") / "tiny")
    return MobileMultiModalLLM.from_pretrained(folder)


def test_a_model_says_what_it_says(model: MobileMultiModalLLM):
    pixels = np.random.default_rng(0).uniform(0, 255, (ROWS, C.image_side, C.image_side, 3))
    prompts = [[model.tokenizer.task_id(f"cap:{language}"), 0] for language in ("en", "de")]
    none = np.zeros((0, 4), np.int32)
    lines = np.zeros((0, C.line_height, C.line_width), np.float32)
    samples = Samples(pixels.astype(np.float32), lines, none, np.array(prompts, np.int32))
    shares = tokens.same_tokens(model, model, samples)
    assert shares[tokens.SAME_PREFIX] == shares[tokens.SAME_PICTURES] == 1.0
    assert set(shares) == {
        *(
            f"{start}{end}"
            for start in (tokens.SAME_PREFIX, tokens.SAME_PICTURES)
            for end in ("", f", {tokens.ITSELF}")
        )
    }
