"""Configs are checked at the border: each wrong field fails by its name."""

import dataclasses
import json

import pytest

from configs import tiny
from mmllm.common import config as config_lib
from mmllm.common.config import parse


def values() -> dict:
    return tiny.get_config().to_dict()


def test_a_config_dict_and_its_plain_dict_resolve_alike():
    assert config_lib.resolve(tiny.get_config()) == config_lib.resolve(values())


def test_a_resolved_config_survives_json():
    config = config_lib.resolve(values())
    text = json.dumps(config_lib.to_dict(config))
    assert config_lib.resolve(json.loads(text)) == config


def test_an_unknown_field_is_refused_by_its_dotted_name():
    wrong = values()
    wrong["train"]["learning_rat"] = 1.0
    with pytest.raises(
        ValueError, match="field train.learning_rat is unknown; allowed: b2, .*learn"
    ):
        config_lib.resolve(wrong)


def test_a_missing_field_is_refused_by_its_dotted_name():
    wrong = values()
    del wrong["loss"]["vqa"]
    with pytest.raises(ValueError, match="field loss.vqa is missing"):
        config_lib.resolve(wrong)


def test_a_renamed_field_is_refused_with_its_new_name_in_its_own_section_only(monkeypatch):
    monkeypatch.setattr(parse, "RENAMED", {"train.width": "model.width"})
    assert config_lib.resolve(values()).model.width == 32
    wrong = values()
    wrong["train"]["width"] = 32
    with pytest.raises(ValueError, match="field train.width was replaced: use model.width"):
        config_lib.resolve(wrong)


@pytest.mark.parametrize(
    ("section", "field", "value", "allowed"),
    [
        ("train", "steps", 1.5, "int"),
        ("train", "steps", True, "int"),
        ("train", "learning_rate", "fast", "float"),
        ("train", "b2", False, "float"),
        ("model", "backbone", None, "str"),
        ("data", "limit", "all", r"int \| None"),
    ],
)
def test_a_value_of_another_type_is_refused(section, field, value, allowed):
    wrong = values()
    wrong[section][field] = value
    with pytest.raises(
        ValueError, match=f"field {section}.{field} must be {allowed}, got {value!r}"
    ):
        config_lib.resolve(wrong)


def test_a_section_that_is_no_section_is_refused():
    with pytest.raises(ValueError, match="field model must be a section, got 3"):
        config_lib.resolve({**values(), "model": 3})


def test_an_integer_serves_as_a_float_and_none_as_an_absent_limit():
    good = values()
    good["loss"]["vqa"], good["data"]["limit"] = 2, None
    config = config_lib.resolve(good)
    assert isinstance(config.loss.vqa, float)
    assert config.data.limit is None


def test_what_was_written_before_a_field_came_has_its_default():
    old = values()
    del old["quant"]["share"]
    assert config_lib.resolve(old) == config_lib.resolve(values())


def test_the_digest_depends_on_the_values_alone():
    config = config_lib.resolve(values())
    backwards = config_lib.resolve(dict(reversed(values().items())))
    assert config_lib.sha256(config) == config_lib.sha256(backwards)
    assert config_lib.sha256(config) != config_lib.sha256(dataclasses.replace(config, seed=1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Before:
    width: int
    rate: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class After(Before):
    added: int = 3


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_a_new_field_with_a_default_changes_no_digest(rate):
    before, after = Before(width=2, rate=rate), After(width=2, rate=rate)
    assert config_lib.sha256(before) == config_lib.sha256(after)
    assert config_lib.sha256(after) != config_lib.sha256(dataclasses.replace(after, added=4))
    assert config_lib.sha256(after) != config_lib.sha256(dataclasses.replace(after, width=3))


def test_a_stored_digest_is_that_of_every_value_whatever_their_order():
    stored = {"b": 1.0, "a": [1, 2]}
    known = "435bf7ed2a5266dd"  # of '{"a":[1,2],"b":1.0}'
    assert config_lib.stored_sha256(stored) == config_lib.stored_sha256(
        dict(reversed(stored.items()))
    )
    assert config_lib.stored_sha256(stored)[:16] == known


def test_a_mapping_takes_any_names_and_checks_each_value():
    good = values()
    good["mix"] = {"anything": 2}
    mix = config_lib.resolve(good).mix
    assert mix == {"anything": 2.0}
    assert isinstance(mix["anything"], float)  # one number, one digest
    for wrong in ({"emoji": "much"}, {"emoji": True}, [1.0], {3: 1.0}):
        good["mix"] = wrong
        with pytest.raises(ValueError, match="config field mix must be "):
            config_lib.resolve(good)


@pytest.mark.parametrize(
    ("section", "old", "new"),
    [
        ("mix", "composites_vqa", "batch.questions"),
        ("mix", "names", "batch.names"),
        ("data", "emoji_views", "data.views.emoji"),
    ],
)
def test_fields_from_before_the_registry_are_refused_with_their_new_names(section, old, new):
    wrong = values()
    wrong[section][old] = 8
    with pytest.raises(ValueError, match=f"field {section}.{old} was replaced: use {new}"):
        config_lib.resolve(wrong)


def test_what_stands_at_its_default_changes_no_digest():
    config = config_lib.resolve(values())
    plain = values()
    del plain["prototypes"], plain["data"]["views"]
    assert config_lib.resolve(plain) == config
    assert config_lib.sha256(config_lib.resolve(plain)) == config_lib.sha256(config)
    plain["data"]["views"] = {"emoji": 3}
    assert config_lib.sha256(config_lib.resolve(plain)) != config_lib.sha256(config)
