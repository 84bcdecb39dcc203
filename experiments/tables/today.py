"""Which config a row of results would measure today: what decides whether it is stale."""

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from experiments.training import ablations
from mmllm import bundle
from mmllm.common import config as config_lib
from mmllm.runtime import model


def _ablation(row: Mapping[str, Any]) -> Any:
    if row["row"] not in ablations.labels():
        return None
    return ablations.config_of(row["row"], row["seed"])


def _trained(name: str) -> Any:
    try:
        module = importlib.import_module(f"configs.{name}")
    except ModuleNotFoundError:
        return None
    return config_lib.resolve(module.get_config())


@functools.cache
def _shipped() -> Any:
    """The sizes of the model that ships: what all rows about the artifact are of."""
    return bundle.open_verified(model.locate("nano"))[1]


KINDS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "quantization": _ablation,
    "limits": lambda row: _trained("nano"),
    "name_search": lambda row: _trained("nano"),
    "throughput": lambda row: _trained(row["row"]),
    "artifact": lambda row: _shipped(),
    "latency": lambda row: _shipped(),
    "serving": lambda row: _shipped(),
    "serving_faults": lambda row: _shipped(),
    "serving_soak": lambda row: _shipped(),
}
"""Kind of result -> the config of one of its rows today, None where the row is gone."""


def config_of(kind: str, row: Mapping[str, Any]) -> Any:
    """The config that a row of a kind in KINDS would measure today; None if it is gone."""
    return KINDS[kind](row)
