"""AdamW with warm-up and cosine decay, clipped gradients, and weight decay on matrices only.

The scales of quantized weights have no decay and a learning rate of their own.
"""

from typing import Any

import jax
import optax

from mmllm.common import mesh
from mmllm.common.config import TrainConfig

SCALES = "scales"
NO_DECAY = ("scale", "bias", "row", "column", "table", "log_scale", "amax")


def learning_rate(config: TrainConfig) -> optax.Schedule:
    """Learning rate by step: linear warm-up to the peak, cosine to 1 % of it."""
    return optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        config.warmup_steps,
        max(config.steps, config.warmup_steps + 1),
        0.01 * config.learning_rate,
    )


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


def make_optimizer(
    config: TrainConfig, scale_rate: float | None = None
) -> optax.GradientTransformation:
    """The optimizer of a run; `scale_rate` multiplies the learning rate of a student's scales."""
    parts = [
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate(config),
            b1=0.9,
            b2=config.b2,
            weight_decay=config.weight_decay,
            mask=decays,
        ),
    ]
    if scale_rate is not None:
        parts.append(optax.masked(optax.scale(scale_rate), is_scale))
    return optax.chain(*parts)
