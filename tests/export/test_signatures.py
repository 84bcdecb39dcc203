"""The functions of an exported file: their names and shapes; what they give is the model's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm import models
from mmllm.export import signatures
from tests.tiny_bundle import CONFIG


def test_prompts_have_few_lengths_and_the_longest_is_all_that_fits():
    assert signatures.lengths(CONFIG) == (16, CONFIG.max_text)


@pytest.mark.slow
def test_a_signature_is_a_method_of_the_model_for_one_row():
    params = models.init_params(CONFIG, jax.random.key(0))
    found = signatures.signatures(CONFIG, params)
    names = {"encode_image", "embed_image", "read_lines", "decode_step"}
    names |= {f"{part}_{length}" for part in ("embed_text", "prefill") for length in (16, 40)}
    assert set(found) == names
    assert all(shape[0] == 1 for each in found.values() for shape, _ in each.inputs.values())
    inputs = {
        name: jnp.ones(shape, kind) for name, (shape, kind) in found["prefill_16"].inputs.items()
    }
    cache = found["prefill_16"].function(**inputs)
    logits = cache.pop("logits")
    assert logits.shape == (1, 16, CONFIG.vocab_size)
    # A prefill's cache is what a step takes.
    step = found["decode_step"].inputs
    assert {name: cache[name].shape for name in cache} == {
        name: shape for name, (shape, _) in step.items() if name in cache
    }
    direct, _ = models.build(CONFIG).apply(
        {"params": params}, inputs["prefix"], inputs["ids"], method="prefill"
    )
    np.testing.assert_allclose(logits, direct, rtol=1e-4, atol=1e-4)
