"""The quantized layers of a bundle: packed tensors and the manifest's entries, written and read.

An entry of the manifest's `quantized` names a weight's grid ("float" where only the inputs of its
layer are rounded), the rounding of the inputs and the shape, output channels first.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmllm.bundle import legacy
from mmllm.quant import coded as coded_lib
from mmllm.quant import grid, packing
from mmllm.quant import rules as rules_lib
from mmllm.quant.coded import Coded
from mmllm.quant.rules import Rule

SCALE = ":scale"


def tensors(path: str, coded: Coded) -> dict[str, np.ndarray]:
    """A coded weight as the arrays a file holds: packed codes, and the scales in float32."""
    packed = packing.pack(coded.codes, grid.GRIDS[coded.grid].bits)
    # A scale multiplies a whole channel: in float16 the weights would be others than were trained.
    return {path: packed, path + SCALE: coded.scale.astype(np.float32)}


def entries(
    shapes: Mapping[str, tuple[int, ...]], coded: Mapping[str, Coded], rules: Sequence[Rule]
) -> dict[str, dict[str, Any]]:
    """The manifest's entry of each layer whose weights or inputs are rounded, by path.

    Args:
      shapes: of all parameters, as the model has them.
      coded: the weights stored as codes.
      rules: of the model; say how inputs are rounded.

    Raises:
      ValueError: codes that do not fit the parameter's shape, or lie on another grid than the rule
        of their weight says.
    """
    found = {}
    for path, each in sorted(coded.items()):
        expected, rule = shapes.get(path, ()), rules_lib.find(path, rules)
        if _stored_shape(path, expected) != each.codes.shape:
            raise ValueError(
                f"coded weight {path} has codes of shape {each.codes.shape}, params has {expected}"
            )
        if rule is not None and rule.weights != each.grid:
            raise ValueError(f"coded weight {path} lies on {each.grid}, rules say {rule.weights}")
    for path, shape in sorted(shapes.items()):
        inputs = rules_lib.inputs_of(path, rules) if _is_matrix(path, shape) else rules_lib.FLOAT
        if path in coded or inputs != rules_lib.FLOAT:
            name = coded[path].grid if path in coded else rules_lib.FLOAT
            stored = list(_stored_shape(path, shape))
            found[path] = {"grid": name, "inputs": inputs, "shape": stored}
    return found


def read(
    stored: Mapping[str, np.ndarray], manifest: Mapping[str, Any], damaged: str
) -> tuple[dict[str, np.ndarray], dict[str, Coded], tuple[Rule, ...]]:
    """Tensors and manifest of a bundle -> parameters as floats, coded weights, rules.

    Paths are those of today, whatever the bundle's schema.

    Args:
      stored: the arrays of the weights' file, by name.
      manifest: a checked manifest.
      damaged: begins every message.

    Returns:
      float32 parameters, the coded ones as what their codes stand for; the coded weights; and a
      rule for each layer that rounds weights or inputs, whose pattern matches its path alone.

    Raises:
      ValueError: an entry and the tensors do not fit together.
    """
    plain, coded, inputs = dict(stored), {}, {}
    for path, entry in manifest["quantized"].items():
        name = str(entry.get("grid")) if isinstance(entry, dict) else ""
        known = name in grid.GRIDS and path + SCALE in plain or name == rules_lib.FLOAT
        if not known or path not in plain:
            raise ValueError(f"{damaged}: quantized weight {path} is not whole")
        shape = list(_stored_shape(path, plain[path].shape))
        if name != rules_lib.FLOAT:
            weight = _unpacked(plain[path], plain.pop(path + SCALE), name)
            if weight is None:
                raise ValueError(f"{damaged}: quantized weight {path} is no {name} with its scales")
            coded[path], shape = weight, list(weight.codes.shape)
            plain[path] = coded_lib.floats(path, weight)
        if shape != entry.get("shape"):
            raise ValueError(
                f"{damaged}: quantized weight {path} has shape {shape}, the manifest says "
                f"{entry.get('shape')}"
            )
        # Schema 2 says in the config how inputs are rounded: see `legacy.inputs` below.
        older = rules_lib.FLOAT if legacy.has_inputs(manifest["config"]) else None
        inputs[path] = entry.get("inputs", older)
        if inputs[path] not in rules_lib.INPUTS:
            raise ValueError(
                f"{damaged}: inputs of quantized weight {path} must be one of "
                f"{', '.join(rules_lib.INPUTS)}, got {inputs[path]!r}"
            )
    # Codes without an entry would pass for weights: uint8 is never a parameter.
    if strays := [path for path, value in plain.items() if value.dtype == np.uint8]:
        raise ValueError(f"{damaged}: quantized lacks {strays[0]}")
    # Only now: until here, entries and tensors had to be matched by the names of the file.
    plain = {legacy.path(path): value.astype(np.float32) for path, value in plain.items()}
    coded = {legacy.path(path): each for path, each in coded.items()}
    inputs = {legacy.path(path): name for path, name in inputs.items()}
    matrices = [path for path, value in plain.items() if _is_matrix(path, value.shape)]
    # There inputs were rounded in layers of float weights too, which no entry names.
    inputs |= legacy.inputs(manifest["config"], matrices)
    rules = tuple(
        Rule(re.escape(path), coded[path].grid if path in coded else rules_lib.FLOAT, name)
        for path, name in sorted(inputs.items())
    )
    return plain, coded, rules


def _is_matrix(path: str, shape: Sequence[int]) -> bool:
    # Depthwise kernels have three axes, the first convolution four: neither is ever rounded.
    return coded_lib.is_weight(path) and len(shape) == 2


def _stored_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A parameter's shape with the output channels first."""
    return shape if coded_lib.is_table(path) else shape[::-1]


def _unpacked(packed: np.ndarray, scale: np.ndarray, name: str) -> Coded | None:
    """A quantized weight as a file has it; None where it cannot be one."""
    if packed.dtype != np.uint8 or packed.ndim != 2:
        return None
    if scale.dtype != np.float32 or scale.shape != packed.shape[:1]:
        return None
    codes = packing.unpack(packed, grid.GRIDS[name].bits)
    # Narrower than the bits on some grids: int4 has no -8.
    low, high = grid.GRIDS[name].low, grid.GRIDS[name].high
    fits = np.isfinite(scale).all() and (scale > 0).all() and (low <= codes).all()
    return Coded(codes, scale, name) if fits and (codes <= high).all() else None
