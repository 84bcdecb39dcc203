"""Bundle -> one LiteRT file: several signatures over one set of packed weights."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mmllm.bundle import LITERT, Bundle
from mmllm.common import paths
from mmllm.export import signatures
from mmllm.export.targets.litert import budget as budget_lib
from mmllm.export.targets.litert import codes, convert
from mmllm.quant import grid as grid_lib
from mmllm.quant import rules as rules_lib


def export(folder: Path, bundle: Bundle) -> Path:
    """Writes a bundle's LiteRT file, whole or not at all.

    Args:
      folder: takes the file.
      bundle: whose model it is.

    Returns:
      The file.

    Raises:
      ModuleNotFoundError: TensorFlow or LiteRT is missing; the message says what to install.
      ValueError: what LiteRT cannot express, or see `codes.put_codes` and `codes.check`.
    """
    _refuse(bundle)  # before the conversion, which takes long
    held = jax.tree.map(jnp.asarray, bundle.params)
    file = convert.convert(signatures.signatures(bundle.config, held))
    file = codes.put_codes(file, bundle.coded, codes.folds(bundle.config, bundle.params))
    check(file, bundle)
    path = folder / LITERT
    with paths.written_whole(path) as partial:
        partial.write_bytes(file)
    return path


def check(file: bytes, bundle: Bundle) -> None:
    """Looks each weight of a file up in its bundle, see `codes.check`."""
    codes.check(file, bundle.coded, bundle.params, codes.folds(bundle.config, bundle.params))


def budget(file: bytes) -> dict[str, Any]:
    """Every byte of a file by what it is for, see `budget.of_file`."""
    return budget_lib.of_file(file)


def _refuse(bundle: Bundle) -> None:
    """Says what LiteRT cannot express."""
    for rule in bundle.rules:
        if rule.inputs == "int8_static":
            raise ValueError(
                "inputs must be float or int8 for LiteRT on a CPU, which rounds each row by a "
                f"range of its own, got 'int8_static' for {rule.pattern}"
            )
    for path, each in bundle.coded.items():
        if grid_lib.GRIDS[each.grid].offset:
            raise ValueError(f"{path} lies on grid {each.grid}, which LiteRT cannot express")
        # Its FULLY_CONNECTED rounds what meets a coded weight: JAX, which would not, would differ.
        if rules_lib.inputs_of(path, bundle.rules) == rules_lib.FLOAT:
            raise ValueError(
                f"inputs of {path} must be int8 for LiteRT, which rounds the inputs of every coded "
                "weight, got 'float': train with a rule that rounds them, or leave its weights "
                "float"
            )
