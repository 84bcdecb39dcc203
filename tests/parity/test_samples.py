"""What both are run on: the shipped sample, and inputs that are moved by next to nothing."""

import numpy as np

from mmllm.parity import samples
from mmllm.runtime.model import MobileMultiModalLLM


def test_the_sample_has_pictures_and_lines():
    inputs = samples.shipped_sample()
    assert len(inputs.pictures) == len(inputs.texts) == 38
    assert len(inputs.lines) == 10
    assert all(path.is_file() for path in (*inputs.pictures, *inputs.lines))


def test_a_text_longer_than_the_model_holds_is_cut(made):
    model = MobileMultiModalLLM.from_pretrained(made.folder, "jax")
    shown, line = np.zeros((32, 32, 3), np.uint8), np.zeros((8, 64, 3), np.uint8)
    inputs = samples.Inputs([shown], [line], ["cat", "a red bus " * 40])
    texts = samples.of_inputs(model, inputs).texts
    room = model.config.max_text
    assert texts.shape == (2, room)
    assert np.count_nonzero(texts, axis=1)[1] == room
    assert texts[1, -1] == model.tokenizer.eos_id


def test_moved_inputs_are_next_to_the_others():
    inputs = np.linspace(1, 255, 1000, dtype=np.float32)
    moved = samples.moved(inputs)
    assert moved.dtype == np.float32
    assert 0.4 < np.mean(moved != inputs) < 0.6
    np.testing.assert_allclose(moved, inputs, rtol=6e-7)
