"""Walks hold against the code, and going back is counted."""

from pathlib import Path

import pytest

from experiments.structure import source, walks
from tests.experiments.structure import houses

REPOSITORY = Path(__file__).resolve().parents[3]
HOUSE = {
    "mmllm/train/run.py": "from mmllm.quant import plan\nfrom mmllm.train import step\n"
    "PHASES = (first, step.second)\n"
    "def first(config):\n    rate = config.tune\n    return plan.plan(rate.steps)\n"
    "def go(config):\n    plan.plan(config.tune.steps)\n    [phase() for phase in PHASES]\n",
    "mmllm/quant/plan.py": "def plan(rules):\n    return _find(rules)\ndef _find(rules): pass\n",
    "mmllm/train/step.py": "class Loop:\n    def run(self):\n        self.done()\n"
    "    def done(self): pass\ndef second():\n    Loop().run()\ndef plan(): pass\n",
}


def leg(*stops: str, field: str = "") -> walks.Leg:
    return walks.Leg("a walk", "a leg", [(stop, "") for stop in stops], field)


def test_a_return_is_to_another_file_and_a_climb_against_the_order(tmp_path):
    way = leg(
        "mmllm/train/run.py:go",
        "mmllm/quant/plan.py:plan",  # a room on the left: a climb
        "mmllm/quant/plan.py:_find",
        "mmllm/train/run.py:PHASES",  # back from plan.py to go: a return
        "mmllm/train/run.py:first",
        "mmllm/train/step.py:second",  # back within run.py: none
        "mmllm/train/step.py:Loop.run",
        field="tune.steps",
    )
    found = walks.follow(houses.build(tmp_path, HOUSE), way)
    assert (found["stops"], found["files"]) == (7, 3)
    assert found["climbs"] == ["mmllm/train/run.py:go -> mmllm/quant/plan.py:plan"]
    assert found["returns"] == ["mmllm/quant/plan.py:_find -> mmllm/train/run.py:go"]


def test_a_stop_may_be_named_again_to_go_back_there(tmp_path):
    way = leg(
        "mmllm/train/run.py:go",
        "mmllm/train/run.py:PHASES",
        "mmllm/train/step.py:second",
        "mmllm/train/run.py:go",
        "mmllm/quant/plan.py:plan",
    )
    found = walks.follow(houses.build(tmp_path, HOUSE), way)
    assert (found["stops"], len(found["returns"])) == (4, 1)
    assert found["climbs"] == ["mmllm/train/step.py:second -> mmllm/quant/plan.py:plan"]


def test_a_stop_that_is_gone_is_told_with_where_its_name_stands(tmp_path):
    with pytest.raises(ValueError, match=r"no mmllm/train/run.py:plan; the name stands at mmllm/q"):
        walks.follow(houses.build(tmp_path, HOUSE), leg("mmllm/train/run.py:plan"))


def test_a_stop_must_be_mentioned_and_its_file_imported(tmp_path):
    modules = houses.build(tmp_path, HOUSE)
    unmentioned = leg("mmllm/quant/plan.py:plan", "mmllm/train/step.py:second")
    with pytest.raises(ValueError, match="second is mentioned neither in mmllm/quant/plan.py:plan"):
        walks.follow(modules, unmentioned)
    not_imported = leg("mmllm/quant/plan.py:plan", "mmllm/train/step.py:plan")
    with pytest.raises(ValueError, match="mend it in walks.json"):
        walks.follow(modules, not_imported)


def test_a_file_that_a_registry_names_may_be_imported_late(tmp_path):
    modules = houses.build(
        tmp_path,
        {
            "mmllm/a.py": "from mmllm.registry import T\ndef f():\n    T[0].export()\n",
            "mmllm/registry.py": 'T = ["mmllm.targets.b"]\n',
            "mmllm/targets/b.py": "def export(): pass\n",
        },
    )
    assert walks.follow(modules, leg("mmllm/a.py:f", "mmllm/targets/b.py:export"))["stops"] == 2


def test_a_field_is_read_through_an_alias_of_its_section_too(tmp_path):
    modules = houses.build(
        tmp_path,
        {
            "mmllm/a.py": "def f(config):\n    s, t = 1, config.tune\n    return t.steps\n",
            "mmllm/b.py": "def f(config):\n    return config.align.steps\n",
            "mmllm/c.py": "def f(tune):\n    return tune.steps\n",
        },
    )
    assert walks.readers(modules, "tune.steps") == ["mmllm/a.py", "mmllm/c.py"]


def test_walks_of_an_unknown_version_are_refused():
    with pytest.raises(ValueError, match="before, after, got 'later'"):
        walks.load("later")


def test_both_versions_take_the_same_walks():
    before, after = ([way.walk for way in walks.load(version)] for version in walks.VERSIONS)
    assert before == after


MODULES = source.read(REPOSITORY)


@pytest.mark.parametrize("way", walks.load("after"), ids=lambda way: way.name)
def test_the_code_takes_this_walk(way):
    assert walks.follow(MODULES, way)["stops"]
