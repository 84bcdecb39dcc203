"""What a quantized student learns from its float self, beside the losses of the data.

Both look at the same batch through `train.forward`; where they differ, it is rounding.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mmllm.common.config import QuantConfig
from mmllm.common.types import Array, Float
from mmllm.train import forward, losses


def divergence(
    student: Float[Array, "*b v"], teacher: Float[Array, "*b v"], temperature: float
) -> Float[Array, "*b"]:
    """KL(teacher || student) of two rows of logits, in nats, times temperature squared.

    Source: Distilling the Knowledge in a Neural Network (Hinton et al., 2015), section 2.
    """
    target = jax.nn.log_softmax(teacher / temperature)
    prediction = jax.nn.log_softmax(student / temperature)
    return temperature**2 * jnp.sum(jnp.exp(target) * (target - prediction), axis=-1)


def losses_of(
    config: QuantConfig, student: forward.Outputs, teacher: forward.Outputs, batch: Any
) -> tuple[Float[Array, ""], losses.Parts]:
    """The weighted sum of what student and teacher disagree on, and each part by name."""
    teacher = jax.lax.stop_gradient(teacher)
    # Tokens of padding have no weight, so nothing is learned from what the teacher makes of them.
    tokens = [
        losses.mean(
            divergence(student[f"{kind}logits"], teacher[f"{kind}logits"], config.temperature),
            batch[f"{kind}target_weight"],
        )
        for kind in ("", "name_", "spoken_")
        if f"{kind}logits" in student
    ]
    columns = [
        divergence(student[name], teacher[name], config.temperature)
        for name in ("lines",)
        if name in student
    ]
    apart = [
        1.0 - jnp.sum(student[name] * teacher[name], axis=-1)
        for name in ("embedding", "texts")
        if name in student
    ]
    parts = {
        "distill_logits": sum(tokens, jnp.float32(0)),
        "distill_lines": sum(map(_mean, columns), jnp.float32(0)),
        "distill_embeddings": sum(map(_mean, apart), jnp.float32(0)),
    }
    weighted = (getattr(config, name) * value for name, value in parts.items())
    return sum(weighted, jnp.float32(0)), parts


def _mean(values: Float[Array, "*b"]) -> Float[Array, ""]:
    """Mean; 0 of nothing: a task that the mixture leaves out."""
    return jnp.mean(values) if values.size else jnp.float32(0)
