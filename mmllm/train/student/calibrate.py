"""Finds the static ranges of activations: what goes into each linear layer, over a few batches.

For layers whose rule says "int8_static". The ranges become parameters of the layers, beside
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
from mmllm.quant import rules as rules_lib
from mmllm.quant import scale, tree
from mmllm.train import forward
from mmllm.train.text import prototypes as prototypes_lib


def calibrated(config: Config, params: Params, arrays: pipeline.TrainingArrays) -> Params:
    """The float run's parameters, with the range of each linear layer's inputs in its model.

    Args:
      config: of the student; where no rule says "int8_static", `params` come back as is.
      params: {"model", "prototypes"} of the float run.
      arrays: training data.
    """
    rules = rules_lib.parse(config.quant.rules)
    if all(rule.inputs != rules_lib.INT8_STATIC for rule in rules):
        return params
    section = config.quant.calibration
    # Without dropout, which scales up what it keeps: inputs are to be those of answers.
    whole = dataclasses.replace(config.model, feature_dropout=0.0)
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

    sentences = jnp.asarray(prototypes_lib.on_device(config, arrays.texts.prototype_sentences))
    floats = jax.tree.map(jnp.asarray, dict(params))
    batches = pipeline.batches(config, arrays)
    # Run without jit: the interception needs values, and few batches are enough.
    for number in range(section.batches):
        batch = jax.tree.map(jnp.asarray, next(batches))
        with nn.intercept_methods(tap):
            forward.run(config, model, floats, batch, sentences, jax.random.key(number))
    flat = dict(tensors.flatten(params["model"]))
    for path, inputs in tree.inputs(params["model"], rules).items():
        if inputs == rules_lib.INT8_STATIC:
            amax = f"{path.rpartition('/')[0]}/{layers.AMAX}"
            if amax not in seen:
                raise ValueError(
                    f"quant.rules round the inputs of {path} as int8_static, but no task of the "
                    "batch reaches it: no range can be found; use int8, or give its task examples"
                )
            flat[amax] = np.asarray(scale.calibrated_amax(jnp.asarray(np.concatenate(seen[amax]))))
    return {**params, "model": tensors.unflatten(flat)}
