"""The numbers of training: refused by name where they cannot work; defaults are those of base."""

import dataclasses
from typing import Any

import pytest

from configs import base, tiny
from mmllm.common import config as config_lib


def values() -> dict[str, Any]:
    return tiny.get_config().to_dict()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("tune.steps", -1, "tune.steps must be 0 .left out. or more, got -1"),
        ("tune.head_views", 0, "tune.head_views must be positive"),
        ("tune.residual_keep", 1.5, "tune.residual_keep must be between 0 and 1"),
        ("train.learning_rate", 0.0, "train.learning_rate must be positive"),
        ("train.log_every", 0, "train.log_every must be positive"),
        ("train.checkpoint_every", 0, "train.checkpoint_every must be positive"),
        ("train.clip_norm", -1.0, "train.clip_norm must be 0 .none. or more"),
        ("train.warmup_share", 0.1, "train.warmup_share must be 0, .*use train.warmup_steps"),
        ("train.patience", 2, "train.patience counts validations.*set train.validate_every"),
        ("align.final_rate", 2.0, "align.final_rate must be between 0 and 1"),
        ("regain.pictures", 0, "regain.pictures must be positive"),
        ("quant.reconstruction.steps", -1, "quant.reconstruction.steps must be 0"),
        ("quant.reconstruction.batch", 0, "quant.reconstruction.batch must be positive"),
        ("quant.calibration.sample", 0, "quant.calibration.sample must be positive"),
    ],
)
def test_a_number_that_cannot_work_is_refused_by_its_name(path, value, message):
    wrong = values()
    *sections, field = path.split(".")
    section = wrong
    for name in sections:
        section = section[name]
    section[field] = value
    with pytest.raises(ValueError, match=message):
        config_lib.resolve(wrong)


def test_a_config_from_before_a_field_came_reads_as_base_says_today():
    whole = config_lib.resolve(base.get_config())
    old = config_lib.to_dict(whole)
    for path in ("tune", "align", "train", "quant", "regain"):
        kind = type(getattr(whole, path))
        for field in dataclasses.fields(kind):
            default = field.default is not dataclasses.MISSING
            if default and (path, field.name) != ("train", "validate_every"):
                del old[path][field.name]
    assert config_lib.resolve(old) == whole
    del old["regain"]
    assert config_lib.resolve(old) == whole
    del old["train"]["validate_every"]  # runs from before validated nothing
    assert config_lib.resolve(old).train.validate_every == 0


def test_a_section_at_its_defaults_does_not_move_a_digest():
    config = config_lib.resolve(values())
    later = dataclasses.replace(config.regain, steps=7)
    assert config_lib.sha256(config) != config_lib.sha256(dataclasses.replace(config, regain=later))
    without = {name: value for name, value in values().items() if name != "regain"}
    assert config_lib.sha256(config) == config_lib.sha256(config_lib.resolve(without))


@pytest.mark.parametrize(("steps", "warmup"), [(1, 1), (19, 1), (20, 1), (60, 3), (2_400, 120)])
def test_a_warm_up_is_a_share_of_the_steps_and_at_least_one(steps, warmup):
    assert config_lib.resolve(values()).tune.warmup(steps) == warmup


def test_without_a_share_there_is_no_warm_up_and_a_run_counts_in_steps():
    config = config_lib.resolve(values())
    assert config.regain.warmup(100) == 0
    assert config.train.warmup(7) == config.train.warmup_steps


def test_the_head_has_steps_and_a_rate_of_its_own():
    tune = dataclasses.replace(config_lib.resolve(values()).tune, head_steps=7, b2=0.5)
    assert (tune.head.steps, tune.head.learning_rate) == (7, tune.head_learning_rate)
    assert (tune.head.b2, tune.head.checkpoint_every) == (0.5, 0)
