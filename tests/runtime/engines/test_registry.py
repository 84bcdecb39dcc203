"""The engines by name: which one runs a bundle; tests/runtime/test_model.py loads them."""

import sys
from pathlib import Path

import pytest

from mmllm.export.targets.registry import TARGETS
from mmllm.runtime.engines import registry
from tests import tiny_bundle

WITH = {"name": "a", "files": {"model.cpu.tflite": "0"}}
WITHOUT = {"name": "a", "files": {}}


def test_a_bundle_is_run_by_the_first_engine_whose_file_it_has():
    assert registry.engine_of(WITH) == "litert"
    assert registry.engine_of(WITHOUT) == "jax"
    assert registry.engine_of(WITH, "jax") == "jax"


def test_an_engine_without_its_file_says_how_to_make_it():
    message = "has no model.cpu.tflite: make it with `mmllm export BUNDLE --to litert`"
    with pytest.raises(ValueError, match=message):
        registry.engine_of(WITHOUT, "litert")
    with pytest.raises(ValueError, match="engine must be one of litert, jax, got 'abacus'"):
        registry.engine_of(WITH, "abacus")


def test_every_engine_runs_the_weights_or_the_file_of_a_target():
    assert {spec.target for spec in registry.ENGINES.values()} <= {None, *TARGETS}
    assert registry.ENGINES["jax"].file is None


def test_without_jax_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mmllm.runtime.engines.jax", None)
    with pytest.raises(ModuleNotFoundError, match=r"engine 'jax' needs .*: pip install 'mmllm\["):
        registry.load("jax", tmp_path, tiny_bundle.CONFIG)


@pytest.mark.parametrize("threads", [0, registry.MAX_THREADS + 1, True, 1.5])
def test_threads_that_cannot_be_are_refused(threads: object):
    with pytest.raises(ValueError, match="threads must be a whole number from 1 to 256"):
        registry.checked_threads(threads)
