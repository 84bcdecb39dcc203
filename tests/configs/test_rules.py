"""The rules of the quantized configs, layer by layer: which inputs they round, and how."""

import importlib
import re
from typing import Any

import jax
import pytest

from configs.quant import ablation
from mmllm.common import config as config_lib
from mmllm.common import mesh
from mmllm.models import mmllm as model_lib
from mmllm.quant import coded, rules
from mmllm.train.student import plan


def matrices(config: config_lib.Config) -> list[str]:
    """Paths of what `QuantDense` and `QuantEmbed` multiply with."""
    shapes: Any = jax.eval_shape(
        lambda key: model_lib.init_params(config.model, key), jax.random.key(0)
    )
    leaves = jax.tree_util.tree_flatten_with_path(shapes)[0]
    return [
        mesh.path_name(path)
        for path, value in leaves
        if coded.is_weight(mesh.path_name(path)) and value.ndim == 2
    ]


def expected(path: str, inputs: str) -> str:
    """One word for the whole model, but the backbone: per token there, its first blocks float."""
    block = re.match(r"backbone/block_(\d+)/", path)
    if block is None:
        return inputs
    return "float" if inputs == "float" or int(block[1]) < 4 else "int8"


def check(config: config_lib.Config, inputs: str) -> None:
    policy, paths = rules.parse(config.quant.rules), matrices(config)
    assert len(paths) > 70
    for path in paths:
        assert rules.inputs_of(path, policy) == expected(path, inputs), path


@pytest.mark.parametrize("name", ["int2", "mixed"])
def test_inputs_are_int8_per_token_but_for_the_first_four_blocks_of_the_backbone(name):
    module = importlib.import_module(f"configs.quant.{name}")
    check(config_lib.resolve(module.get_config()), "int8")


@pytest.mark.parametrize("row", list(ablation.ROWS))
def test_every_row_of_the_ablation_rounds_the_inputs_of_all_its_layers_alike(row):
    inputs = "int8_static" if row == "int8_static" else "float" if "float" in row else "int8"
    config = config_lib.resolve(ablation.get_config(row))
    check(config, inputs)
    plan.whole(config)  # no rule is idle


def test_the_layers_of_mixed_stand_on_the_grids_that_ship():
    """As the manifest of the bundle that ships has them."""
    from mmllm import bundle
    from mmllm.runtime import model

    shipped = bundle.load(model.locate("nano"))
    config = config_lib.resolve(importlib.import_module("configs.quant.mixed").get_config())
    policy = rules.parse(config.quant.rules)
    for path in matrices(config):
        ships, planned = rules.find(path, shipped.rules), rules.find(path, policy)
        assert planned is not None
        assert (planned.weights, planned.inputs) == (
            (ships.weights, ships.inputs) if ships else ("float", "float")
        ), path
