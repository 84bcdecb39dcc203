"""The LiteRT engine's own checks; export/targets/litert/test_target.py compares its numbers."""

import sys
from pathlib import Path

import pytest

from mmllm.runtime.engines.litert import LiteRtEngine
from tests import tiny_bundle


def test_a_file_that_is_no_model_is_refused(tmp_path: Path):
    path = tmp_path / "model.cpu.tflite"
    path.write_bytes(b"not a flatbuffer at all")
    with pytest.raises(ValueError, match=r"model\.cpu\.tflite is no LiteRT model"):
        LiteRtEngine(path, tiny_bundle.CONFIG)


def test_without_litert_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ModuleNotFoundError, match="engine 'litert' needs .*: pip install mmllm"):
        LiteRtEngine(tmp_path / "model.cpu.tflite", tiny_bundle.CONFIG)
