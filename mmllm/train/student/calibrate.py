"""Finds the static ranges of activations: what goes into each linear layer, over a few batches.

For models whose `activations` are "int8_static". The ranges become parameters of the layers, beside
their weights; no training moves them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmllm.common import tensors
from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.data import pipeline
from mmllm.models import layers
from mmllm.models import mmllm as model_lib
from mmllm.quant import scale
from mmllm.train import forward
from mmllm.train import prototypes as prototypes_lib

STATIC = "int8_static"


def in_float(config: Config) -> Config:
    """A student's config with activations that nothing rounds."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, activations="float"))


def calibrated(config: Config, params: Params, arrays: pipeline.TrainingArrays) -> Params:
    """The float run's parameters, with the range of each linear layer's inputs in its model.

    Args:
      config: of the student; where its activations have no static range, `params` come back as is.
      params: {"model", "prototypes"} of the float run.
      arrays: training data.
    """
    if config.model.activations != STATIC:
        return params
    section = config.quant.calibration
    whole = dataclasses.replace(in_float(config).model, feature_dropout=0.0)
    model, rng = model_lib.build(whole), np.random.default_rng(config.seed)
    seen: dict[str, list[np.ndarray]] = {}

    def tap(run: Callable[..., Any], arguments: Any, named: Any, context: Any) -> Any:
        module, method = context.module, context.method_name
        linear = isinstance(module, layers.QuantDense) and method == "__call__"
        if linear or (isinstance(module, layers.QuantEmbed) and method == "logits"):
            values = np.asarray(arguments[0]).ravel()
            path = "/".join((*module.path, layers.AMAX))
            seen.setdefault(path, []).append(rng.choice(values, min(section.sample, values.size)))
        return run(*arguments, **named)

    prototype_sentences = jnp.asarray(prototypes_lib.held(config, arrays.texts.prototype_sentences))
    held = jax.tree.map(jnp.asarray, dict(params))
    batches = pipeline.batches(config, arrays)
    for number in range(section.batches):
        batch = jax.tree.map(jnp.asarray, next(batches))
        with nn.intercept_methods(tap):
            forward.run(config, model, held, batch, prototype_sentences, jax.random.key(number))
    flat = dict(tensors.flatten(params["model"]))
    for path, parts in seen.items():
        weight = path.removesuffix(layers.AMAX)
        if f"{weight}kernel" not in flat and f"{weight}table" not in flat:
            continue  # of the prototypes, which are no part of the model
        flat[path] = np.asarray(scale.static_range(jnp.asarray(np.concatenate(parts))))
    return {**params, "model": tensors.unflatten(flat)}
