"""The plan of a quantized run: which weights it rounds, and what it refuses before training."""

import dataclasses

import jax
import pytest

from configs import nano
from mmllm.common import config as config_lib
from mmllm.quant.rules import Rule
from mmllm.train.student import plan
from tests import tiny_run


def ruled(*rules: str, config: config_lib.Config = tiny_run.CONFIG) -> config_lib.Config:
    quant = dataclasses.replace(config.quant, start="tiny", rules=rules)
    return dataclasses.replace(config, quant=quant)


def test_a_plan_holds_the_weights_of_the_whole_model_and_training_those_outside_the_stem():
    rules = (r"backbone/.*/expand/kernel int8", r"backbone/.* float", r"embed/table int4")
    config = ruled(*rules, config=config_lib.resolve(nano.get_config()))
    planned = plan.whole(config)
    backbone = [path for path in planned if path.startswith("backbone/")]
    assert {planned[path].weights for path in backbone} == {"int8"}
    assert len(backbone) == 15  # every block but the first expands
    assert plan.trained(config).weights == {"embed/table": Rule("embed/table", "int4")}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("ghost/.* int2", r"^rule 'ghost/\.\*' decides over no parameter"),
        ("embed/.* int3", r"^weights must be one of "),
        ("embed/.*", r"^a rule must be "),
        ("encoder/norm/.* int2", r"^rule 'encoder/norm/\.\*' matches encoder/norm/scale "),
    ],
)
def test_a_rule_that_cannot_work_is_refused_before_training(rule, message):
    with pytest.raises(ValueError, match=message):
        plan.whole(ruled(rule))


def test_an_unknown_start_of_scales_is_refused_with_the_plan():
    config = ruled("embed/table int8")
    quant = dataclasses.replace(config.quant, scale_start="max")
    with pytest.raises(ValueError, match="quant.scale_start must be one of mse, rms, absmean"):
        plan.whole(dataclasses.replace(config, quant=quant))


def test_static_inputs_of_the_backbone_are_refused_with_the_plan():
    rules = (r"backbone/.*/expand/kernel int8 int8_static", r"backbone/.* float")
    config = ruled(*rules, config=config_lib.resolve(nano.get_config()))
    with pytest.raises(ValueError, match="must not round the inputs of backbone/block_1/expand"):
        plan.whole(config)


def test_a_model_is_traced_once_and_a_plan_belongs_to_its_caller(monkeypatch):
    config = ruled("embed/table int4")
    plan.whole(config).clear()
    monkeypatch.setattr(jax, "eval_shape", None)
    assert set(plan.whole(config)) == {"embed/table"}
    assert set(plan.whole(ruled("embed/table int8"))) == {"embed/table"}


def test_a_config_without_rules_plans_nothing():
    assert plan.whole(tiny_run.CONFIG) == {}
