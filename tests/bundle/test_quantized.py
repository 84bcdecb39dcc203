"""Which layers a manifest names as quantized, and that their rules come back."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmllm import bundle
from mmllm.bundle import quantized
from mmllm.common import tensors
from mmllm.quant import rules as rules_lib
from mmllm.quant.coded import Coded
from mmllm.quant.rules import Rule
from tests import tiny_bundle

RULES = rules_lib.parse(
    ("decoder/.*kernel int4 int8", "embed/table float int8_static", ".* float float")
)
SHAPES = {
    "decoder/up/bias": (6,),
    "decoder/up/kernel": (4, 6),
    "embed/table": (8, 4),
    "encoder/up/kernel": (4, 6),
}
CODED = {"decoder/up/kernel": Coded(np.ones((6, 4), np.int8), np.ones(6, np.float32), "int4")}
ENTRIES = {
    "decoder/up/kernel": {"grid": "int4", "inputs": "int8", "shape": [6, 4]},
    "embed/table": {"grid": "float", "inputs": "int8_static", "shape": [8, 4]},
}


def stored() -> dict[str, np.ndarray]:
    found = {path: np.ones(shape, np.float16) for path, shape in SHAPES.items()}
    return found | quantized.tensors("decoder/up/kernel", CODED["decoder/up/kernel"])


def test_a_layer_that_rounds_weights_or_inputs_has_an_entry_and_no_other_has():
    assert quantized.entries(SHAPES, CODED, RULES) == ENTRIES


def test_entries_come_back_as_one_rule_a_layer_that_matches_it_alone():
    plain, coded, rules = quantized.read(stored(), {"quantized": ENTRIES, "config": {}}, "x")
    assert rules == (
        Rule(r"decoder/up/kernel", "int4", "int8"),
        Rule(r"embed/table", "float", "int8_static"),
    )
    assert set(coded) == set(CODED)
    assert {path: value.dtype for path, value in plain.items()} == dict.fromkeys(
        SHAPES, np.dtype(np.float32)
    )


def test_codes_on_another_grid_than_the_rules_say_are_refused():
    other = (Rule("decoder/.*", "int2", "int8"),)
    with pytest.raises(ValueError, match="decoder/up/kernel lies on int4, rules say int2"):
        quantized.entries(SHAPES, CODED, other)


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        ("decoder/up/kernel", {"inputs": "int4"}, "must be one of float, int8, .* got 'int4'"),
        ("decoder/up/kernel", {"inputs": None}, "must be one of float, int8, .* got None"),
        ("embed/table", {"shape": [4, 8]}, r"has shape \[8, 4\], the manifest says \[4, 8\]"),
        ("embed/table", {"grid": "int4"}, "embed/table is not whole"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(path, change, message):
    entries = {**ENTRIES, path: ENTRIES[path] | change}
    with pytest.raises(ValueError, match=f"^x: .*{message}"):
        quantized.read(stored(), {"quantized": entries, "config": {}}, "x")


def test_a_bundle_keeps_rules_and_provenance_and_they_are_part_of_what_it_is(tmp_path: Path):
    plain = bundle.load(tiny_bundle.make(tmp_path / "plain"))
    assert plain.rules == ()
    assert "provenance" not in plain.manifest

    def save(name: str, *rules: Rule) -> bundle.Bundle:
        folder = bundle.save(
            tmp_path / name,
            params=plain.params,
            config=plain.config,
            tokenizer_path=plain.tokenizer_path,
            charset=tiny_bundle.CHARSET,
            languages=["en"],
            scores={},
            data=[],
            pretrained=[],
            rules=rules,
            provenance={"commit": None, "step": 3},
        )
        return bundle.load(folder)

    rounds = save("rounds", Rule("embed/table", "float", "int8"))
    assert rounds.rules == (Rule("embed/table", "float", "int8"),)
    assert rounds.manifest["provenance"] == {"commit": None, "step": 3}
    assert save("float").fingerprint == plain.fingerprint != rounds.fingerprint
    flat = dict(tensors.flatten(rounds.params))
    np.testing.assert_array_equal(flat["embed/table"], plain.params["embed"]["table"])
    written = json.loads((rounds.folder / bundle.MANIFEST).read_text())
    assert written["quantized"] == {
        "embed/table": {"grid": "float", "inputs": "int8", "shape": [400, 32]}
    }
