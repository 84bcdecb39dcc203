"""Bundles of an older schema load as they are: names are translated, bytes and hashes stay."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmllm import bundle
from mmllm.bundle import legacy
from mmllm.common import config as config_lib
from mmllm.common.config import parse, sections
from mmllm.quant import rules
from mmllm.runtime import model

SHIPPED = model.locate("nano")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stem/block_0/expand/kernel", "backbone/block_0/expand/kernel"),
        ("stem/stem/kernel", "backbone/stem/kernel"),
        ("stem_affine/scale", "feature_affine/scale"),
        ("decoder/block_0/mlp/up/largest", "decoder/block_0/mlp/up/amax"),
        ("decoder/block_0/mlp/up/kernel", "decoder/block_0/mlp/up/kernel"),
    ],
)
def test_a_path_of_schema_2_is_translated_once(old: str, new: str):
    assert legacy.path(old) == new
    assert legacy.path(new) == new


def test_a_config_of_schema_2_has_the_names_of_today():
    assert legacy.config({"stem": "patch", "tap": "7x7x320", "width": 32}) == {
        "backbone": "patch",
        "level": "7x7x320",
        "width": 32,
    }


@pytest.mark.parametrize(
    ("activations", "expected"),
    [
        ("float", {}),
        ("int8", {"backbone/block_4/expand/kernel": "int8", "embed/table": "int8"}),
        # The backbone's features were cached before anything was calibrated.
        ("int8_static", {"backbone/block_4/expand/kernel": "int8", "embed/table": "int8_static"}),
    ],
)
def test_inputs_of_schema_2_follow_from_two_fields_of_its_config(activations: str, expected):
    config = {"activations": activations, "float_blocks": 4}
    weights = ("backbone/block_3/expand/kernel", "backbone/block_4/expand/kernel", "embed/table")
    assert legacy.has_inputs(config)
    assert legacy.inputs(config, weights) == expected
    assert legacy.config(config | {"width": 32}) == {"width": 32}


def test_a_config_of_today_says_nothing_of_inputs():
    assert not legacy.has_inputs({"width": 32})
    assert legacy.inputs({"width": 32}, ("embed/table",)) == {}


def test_the_bundle_that_ships_rounds_the_inputs_of_all_its_coded_weights_per_token():
    loaded = bundle.load(SHIPPED)
    assert {rule.inputs for rule in loaded.rules} == {"int8"}
    assert len(loaded.rules) == len(loaded.coded)
    for path, each in loaded.coded.items():
        rule = rules.find(path, loaded.rules)
        assert rule is not None
        assert rule.weights == each.grid


def test_the_bundle_that_ships_is_of_schema_2_and_loads_with_its_fingerprint():
    loaded = bundle.load(SHIPPED)
    assert loaded.manifest["schema_version"] == 2
    assert loaded.fingerprint == bundle.fingerprint(bundle.read_manifest(SHIPPED))
    assert {"backbone", "feature_affine"} <= set(loaded.params)
    assert not {"stem", "stem_affine"} & set(loaded.params)
    assert loaded.config.backbone == "efficientnet_lite0"
    assert not [path for path in loaded.coded if path.startswith("stem/")]


def test_the_codes_of_the_bundle_that_ships_are_those_of_its_file():
    from safetensors.numpy import load_file

    from mmllm.quant import grid, packing

    stored, loaded = load_file(str(SHIPPED / bundle.WEIGHTS)), bundle.load(SHIPPED)
    for path in loaded.manifest["quantized"]:
        found = loaded.coded[legacy.path(path)]
        bits = grid.GRIDS[found.grid].bits
        np.testing.assert_array_equal(packing.pack(found.codes, bits), stored[path])


def test_a_bundle_from_before_a_field_came_loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    later = dataclasses.make_dataclass(
        "Later",
        [("added", int, dataclasses.field(default=7))],
        bases=(sections.ModelConfig,),
        frozen=True,
        kw_only=True,
    )
    monkeypatch.setattr(config_lib, "ModelConfig", later)
    loaded = bundle.load(SHIPPED)
    assert loaded.config.added == 7
    assert loaded.fingerprint == bundle.fingerprint(bundle.read_manifest(SHIPPED))


def test_a_field_that_only_a_later_version_knows_is_named(tmp_path: Path):
    folder = tmp_path / "nano"
    shutil.copytree(SHIPPED, folder)
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    manifest["config"]["unheard_of"] = 1
    manifest["config_sha256"] = parse.stored_sha256(manifest["config"])
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="model.unheard_of is unknown"):
        bundle.load(folder)
