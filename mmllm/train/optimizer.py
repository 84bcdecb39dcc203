"""AdamW with warm-up and cosine decay, clipped gradients, and weight decay on matrices only.

The only factory of optimizers: each phase gives it the section of the config that holds its
numbers. The scales of quantized weights have no decay and a learning rate of their own.
"""

from typing import Any

import jax
import optax

from mmllm.common import mesh
from mmllm.common.config import FitConfig

SCALES = "scales"
NO_DECAY = ("scale", "bias", "row", "column", "table", "log_scale", "amax")


def learning_rate(section: FitConfig) -> optax.Schedule:
    """Learning rate by step: linear warm-up to the peak, cosine to `final_rate` of it."""
    peak, steps = section.learning_rate, section.steps
    warmup = section.warmup(steps)
    if not warmup:
        return optax.cosine_decay_schedule(peak, max(steps, 1), section.final_rate)
    # A run shorter than its warm-up still needs a cosine of one step.
    length = max(steps, warmup + 1)
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, length, section.final_rate * peak)


def decays(params: Any) -> Any:
    """Whether each parameter takes part in weight decay: the matrices do."""

    def decays_at(path: tuple[Any, ...], _: Any) -> bool:
        names = mesh.path_name(path).split("/")
        return names[-1] not in NO_DECAY and names[0] != SCALES

    return jax.tree_util.tree_map_with_path(decays_at, params)


def is_scale(params: Any) -> Any:
    """Whether each parameter is the scale of a quantized weight."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: mesh.path_name(path).split("/")[0] == SCALES, params
    )


def make(section: FitConfig, scale_rate: float | None = None) -> optax.GradientTransformation:
    """The optimizer of a phase.

    Args:
      section: its part of the config, such as `config.tune`.
      scale_rate: multiplies the learning rate of the parameters below "scales"; None: as the rest.
    """
    parts = [optax.clip_by_global_norm(section.clip_norm)] if section.clip_norm else []
    parts.append(
        optax.adamw(
            learning_rate(section),
            b1=0.9,
            b2=section.b2,
            weight_decay=section.weight_decay,
            mask=decays,
        )
    )
    if scale_rate is not None:
        # After AdamW, whose own normalisation would undo a factor on the gradient.
        parts.append(optax.masked(optax.scale(scale_rate), is_scale))
    return optax.chain(*parts)
