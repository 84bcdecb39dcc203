"""Every experiment resolves, and a change of one shows in its golden file."""

import importlib
import os
from pathlib import Path

import pytest

from configs import base
from mmllm.common import config as config_lib
from mmllm.train.student import plan
from mmllm.train.student import start as start_lib

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "configs"
NAMES = sorted(
    path.relative_to(ROOT / "configs").with_suffix("").as_posix()
    for path in (ROOT / "configs").rglob("*.py")
    if path.stem != "__init__"
)


def module(name):
    return importlib.import_module(f"configs.{name.replace('/', '.')}")


def flat(values, prefix="") -> list[str]:
    lines = []
    for key, value in sorted(values.items()):
        if isinstance(value, dict):
            lines += flat(value, f"{prefix}{key}.")
        else:
            lines.append(f"{prefix}{key} = {value!r}")
    return lines


@pytest.mark.parametrize("name", NAMES)
def test_a_config_resolves_under_the_name_of_its_file(name):
    # Runs lie side by side in one folder, so a quantized one has the name of its start as well.
    config = config_lib.resolve(module(name).get_config())
    own, start = name.removeprefix("quant/"), config.quant.start.partition("@")[0]
    expected = f"{start}_{own.removeprefix(f'{start}_')}" if start else own
    assert config.name == expected
    assert bool(start) == name.startswith("quant/")


@pytest.mark.parametrize("name", NAMES)
def test_golden_values_of_a_config(name):
    config = config_lib.resolve(module(name).get_config())
    text = "\n".join(flat(config_lib.to_dict(config))) + "\n"
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("MMLLM_UPDATE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), "intended? rewrite with make golden"


def test_no_golden_file_outlives_its_config():
    golden = [path.relative_to(GOLDEN).with_suffix("").as_posix() for path in GOLDEN.rglob("*.txt")]
    assert sorted(golden) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_docstring_holds_command_hardware_and_time(name):
    text = module(name).__doc__ or ""
    assert text.startswith(f"{name.removeprefix('quant/')}: ")
    for heading in ("Command:", "Hardware:", "Time:"):
        assert f"\n{heading}" in text


@pytest.mark.parametrize("name", NAMES)
def test_two_configs_share_nothing_that_can_change(name):
    one, other = module(name).get_config(), module(name).get_config()
    one.train.steps, one.model.width = 1, 2
    assert other == module(name).get_config()


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("quant/")])
def test_a_quantized_config_rounds_a_model_that_its_start_can_give(name):
    config = config_lib.resolve(module(name).get_config())
    start = config_lib.resolve(module(config.quant.start.partition("@")[0]).get_config())
    assert config.model == start.model
    assert start_lib.named(config)[0] == start.name
    plan.whole(config)  # refuses a rule that decides over nothing
    assert plan.backbone(config)
    assert plan.trained(config).weights


def test_no_config_adds_a_field_to_base():
    fields = {line.split(" = ")[0] for line in flat(base.get_config().to_dict())}
    for name in NAMES:
        assert {
            line.split(" = ")[0] for line in flat(module(name).get_config().to_dict())
        } == fields


def test_a_locked_config_refuses_an_unknown_override():
    cfg = base.get_config().lock()
    with pytest.raises(AttributeError, match="learning_rat"):
        cfg.train.learning_rat = 1.0
