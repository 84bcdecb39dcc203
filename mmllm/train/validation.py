"""The losses on the "val" splits, over a few batches that are the same at every validation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.data import pipeline
from mmllm.train import fit, step
from mmllm.train.state import TrainState
from mmllm.train.student import plan
from mmllm.train.text import prototypes as prototypes_lib

SEED = 9_000  # of the batches: whatever a run's own seed, runs are compared on the same


def of(
    config: Config,
    arrays: pipeline.TrainingArrays,
    place: Callable[[Any], Any],
    planned: plan.Plan = plan.FLOAT,
    teacher: Params | None = None,
) -> fit.Validation | None:
    """The validation of a run; None where its config asks for none.

    Neither the batches nor the key come from where training draws its own: a run with validation
    equals one without, bit for bit.

    Args:
      config: the experiment.
      arrays: of the "val" splits, with captions and sentences of their own.
      place: puts a batch on the devices.
      planned: what a student rounds.
      teacher: of a student, whose prototypes it is measured with; None for a float run.
    """
    section = config.train
    if not section.validate_every:
        return None
    iterator = pipeline.batches(dataclasses.replace(config, seed=SEED), arrays)
    # Drawn once and kept: at every validation the same pictures and texts, in the same rows.
    batches = [next(iterator) for _ in range(section.validation_batches)]
    sentences = prototypes_lib.on_device(config, arrays.texts.prototype_sentences)
    evaluate = jax.jit(step.make_evaluation(config, planned))

    def losses(state: TrainState) -> dict[str, float]:
        found = [
            jax.device_get(evaluate(state.params, place(batch), sentences, teacher))
            for batch in batches
        ]
        return {f"val/{name}": float(np.mean([each[name] for each in found])) for name in found[0]}

    return fit.Validation(losses=losses, every=section.validate_every, patience=section.patience)
