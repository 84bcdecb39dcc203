"""Layers of the model as functions of their own, with what went in and came out of them in JAX.

Errors grow through a deep network that rounds its activations, so a file is compared with JAX layer
by layer, each on the same input.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmllm.common.config import ModelConfig
from mmllm.common.types import Params
from mmllm.export.signatures import Signature
from mmllm.models import attention, efficientnet_lite0, heads, layers, vit
from mmllm.models import mmllm as model_lib
from mmllm.quant.rules import Rule

LAYERS = (
    nn.Conv,
    efficientnet_lite0.Block,
    layers.Affine,
    vit.PictureTokens,
    vit.LineTokens,
    attention.Block,
    layers.Norm,
    heads.ImageEmbedding,
    heads.LineReader,
    layers.QuantEmbed,
    layers.QuantDense,
)
"""What counts as a layer: a module of one of these classes that lies in no other such module."""

Call = Callable[[model_lib.Mmllm], Any]


@dataclasses.dataclass(frozen=True)
class Layer:
    """One call of a layer.

    Attributes:
      name: its path, and the method where it is not `__call__`: "decoder/block_0.step".
      module: the layer, unbound.
      method: of the module.
      inputs: arrays that went in, in the order of `jax.tree.leaves`.
      outputs: arrays that came out.
      structure: of the arguments.
    """

    name: str
    module: nn.Module
    method: str
    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]
    structure: Any


def record(
    config: ModelConfig, params: Params, call: Call, rules: Sequence[Rule] = ()
) -> list[Layer]:
    """Runs `call` on the model with its parameters bound, and keeps each layer's last call.

    Args:
      config: of the model.
      params: floats.
      call: runs methods of the model on one row.
      rules: how the layers that are recorded round their inputs.

    Returns:
      The layers in the order of their calls.
    """
    found: dict[str, Layer] = {}
    depth = 0

    def tap(run: Callable[..., Any], arguments: Any, named: Any, context: Any) -> Any:
        nonlocal depth
        # `depth`: a layer inside a layer is compared as a part of it, on one input.
        if not isinstance(context.module, LAYERS) or context.method_name == "setup" or depth:
            return run(*arguments, **named)
        depth += 1
        try:
            result = run(*arguments, **named)
        finally:
            depth -= 1
        method = context.method_name
        name = "/".join(context.module.path) + ("" if method == "__call__" else f".{method}")
        # Flat, as a file's signature takes them: an argument may be a whole cache.
        leaves, structure = jax.tree.flatten((arguments, named))
        found[name] = Layer(
            name,
            # Unbound, so that it runs by itself on its own part of the parameters.
            context.module.clone(parent=None, _deep_clone=True),
            method,
            tuple(np.asarray(leaf) for leaf in leaves),
            tuple(np.asarray(leaf) for leaf in jax.tree.leaves(result)),
            structure,
        )
        return result

    bound = model_lib.build(config, rules).bind({"params": params})
    with nn.intercept_methods(tap):
        call(bound)
    return list(found.values())


def signature(layer: Layer, params: Params) -> Signature:
    """A layer as a signature of a LiteRT file; inputs are input_0, input_1 and so on."""
    module, names = _exported(layer.module), [f"input_{i}" for i in range(len(layer.inputs))]
    held: Any = params
    for part in layer.name.partition(".")[0].split("/"):
        held = held[part]

    def function(**inputs: jax.Array) -> dict[str, jax.Array]:
        arguments, named = jax.tree.unflatten(layer.structure, [inputs[name] for name in names])
        result = module.apply({"params": held}, *arguments, **named, method=layer.method)
        return {f"output_{i}": leaf for i, leaf in enumerate(jax.tree.leaves(result))}

    shapes = {
        name: (array.shape, array.dtype.type)
        for name, array in zip(names, layer.inputs, strict=True)
    }
    return Signature(function, shapes)


def signatures(layers_: Sequence[Layer], params: Params) -> dict[str, Signature]:
    """`signature` of each layer; signature names cannot hold every character of a path."""
    return {signature_name(layer.name): signature(layer, params) for layer in layers_}


def signature_name(name: str) -> str:
    """A layer's name as that of a signature."""
    return name.replace("/", "__").replace(".", "__")


def _exported(module: nn.Module) -> nn.Module:
    """The module in the form that converters know, its inputs float: the file rounds them."""
    forms: dict[str, Any] = {"rules": (), "depthwise": "conv", "exported": True}
    fields = [field.name for field in dataclasses.fields(module)]
    changed = {name: form for name, form in forms.items() if name in fields}
    return module.clone(parent=None, **changed)
