"""The last stage: the tower comes to lie where the prototypes is, and nothing else moves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.common import tensors
from mmllm.data import synthetic
from mmllm.models import mmllm as model_lib
from mmllm.quant import rules, tree
from mmllm.train import run as run_lib
from mmllm.train import state as state_lib
from mmllm.train.phases import align_text
from mmllm.train.student import plan
from mmllm.train.text import prototypes as prototypes_lib
from tests import tiny_run

ALIGN = dataclasses.replace(
    tiny_run.CONFIG.align, steps=60, batch=16, learning_rate=1e-2, log_every=4
)
CONFIG = dataclasses.replace(tiny_run.CONFIG, align=ALIGN)
ARRAYS = synthetic.training_arrays(CONFIG)


RULES = (r"text_tower/block_.*kernel int2", r"embed/table int4")


@pytest.fixture(scope="module")
def params():
    return jax.device_get(state_lib.init_params(CONFIG, synthetic.CAPTIONS))


def test_aligning_brings_captions_to_the_bank_and_is_done_once(params, tmp_path):
    said: list[str] = []
    path = tmp_path / run_lib.TOWER
    tower = align_text.align(CONFIG, params, ARRAYS, path, said.append)
    distance = float(said[-1].split("captions ")[1].split()[0])
    assert said[-1].startswith("text: step 60/60")
    assert distance < 0.3  # random directions are 1 apart
    kept = tensors.read(path)["model"]
    own = {"text_tower": params["model"]["text_tower"]}
    assert jax.tree.structure(kept) == jax.tree.structure(own)
    jax.tree.map(np.testing.assert_array_equal, kept, dict(tower["model"]))
    said.clear()
    align_text.align(CONFIG, params, ARRAYS, path, said.append)
    assert not said


@pytest.mark.slow
def test_the_tower_of_a_quantized_run_is_aligned_on_its_grids(params, tmp_path):
    planned = tree.plan(params["model"], rules.parse(RULES))
    student = params | {"scales": tree.init_scales(params["model"], planned)}
    student = jax.tree.map(jnp.asarray, student)
    path, said = tmp_path / run_lib.TOWER, []
    align_text.align(CONFIG, student, ARRAYS, path, said.append, plan.Plan(planned, ()))
    distance = float(said[-1].split("captions ")[1].split()[0])
    joined = run_lib.joined(jax.device_get(student), path)

    def moved(part):
        return jax.tree.map(lambda a, b: bool(np.any(a != b)), student[part], joined[part])

    assert all(jax.tree.leaves(moved("scales")["text_tower"]))
    assert not any(jax.tree.leaves(moved("scales")["embed"]))
    assert not any(jax.tree.leaves(moved("model") | {"text_tower": False}))

    # What was reported is what the codes say, not what the floats behind them do.
    joined = jax.tree.map(jnp.asarray, dict(joined))
    decoded = tree.dequantize(
        joined["model"], tree.quantize(joined["model"], joined["scales"], planned)
    )
    label = ARRAYS.texts.label
    known = label >= 0
    texts = model_lib.build(CONFIG.model).apply(
        {"params": decoded}, jnp.asarray(ARRAYS.texts.ids[known]), method="embed_text"
    )
    prototype_sentences = jnp.asarray(ARRAYS.texts.prototype_sentences, jnp.float32)
    prototypes = prototypes_lib.vectors(params["prototypes"], prototype_sentences)
    apart = 1.0 - np.sum(np.asarray(texts) * np.asarray(prototypes)[label[known]], axis=-1)
    assert np.mean(apart) == pytest.approx(distance, abs=0.1)
    assert distance < 0.4
