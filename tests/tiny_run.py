"""A training run without the training: config.json, one checkpoint and a vocabulary."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from configs import tiny
from mmllm.common import config as config_lib
from mmllm.data import pipeline, sources, synthetic
from mmllm.train import checkpoint, optimizer
from mmllm.train import run as run_lib
from mmllm.train import state as state_lib
from mmllm.train.phases import prepare
from tests import tiny_bundle

CONFIG = config_lib.resolve(tiny.get_config())
# A student of it: one kind of grid for each kind of scale, and few weights, so that it starts fast.
QUANT_RULES = (
    r"decoder/.*/(key|value|up)/kernel int2 int8",
    r"embed/table int8 int8",
    r"text_tower/project/kernel ternary int8 rms",
    r".*/kernel float int8",
)
STUDENT = dataclasses.replace(
    CONFIG,
    name="tiny_student",
    quant=dataclasses.replace(
        CONFIG.quant, start="tiny", rules=QUANT_RULES, scale_start="absmean", scale_rate=0.5
    ),
)


def fresh_state(config: config_lib.Config = CONFIG) -> state_lib.TrainState:
    """What a float run on the generated arrays begins with."""
    params = state_lib.init_params(config, synthetic.CAPTIONS)
    return state_lib.fresh(params, optimizer.make(config.train))


def make(
    workdir: Path, config: config_lib.Config = CONFIG, step: int | None = None
) -> state_lib.TrainState:
    """Writes the run of `configs/tiny.py`, claimed by `config`, and returns its state.

    It stands at `step`, its last one by default.
    """
    run_lib.claim(workdir, config)
    step = config.train.steps if step is None else step
    state = fresh_state(CONFIG).replace(step=jnp.int32(step))
    checkpoints = checkpoint.Checkpoints(workdir, keep=1)
    checkpoints.save(state, pipeline.batches(CONFIG, synthetic.training_arrays(CONFIG)))
    checkpoints.close()
    tiny_bundle.train_tokenizer(workdir / prepare.TOKENIZER)
    return state


def pretend_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives every corpus a hash and licences."""

    def describe(name: str) -> dict[str, Any]:
        return {"hash": f"hash of {name}", "splits": {}, "licences": ["MIT", "CC0-1.0"]}

    monkeypatch.setattr(sources, "describe", describe)
