"""The toy corpus and the toy fonts as fixtures."""

import types

import pytest

from mmllm.data import registry
from mmllm.data.corpora import build
from tests.data.synthetic.toy_fonts import toy_fonts
from tests.data.synthetic.toy_studio import toy_studio

__all__ = ["toy_fonts", "toy_studio"]


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """Makes the toy corpus the only one, in an empty cache."""
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path))
    from tests.data.toy_corpus import Toy

    module = types.ModuleType("toy")
    vars(module).update(Toy=Toy, PACKAGES=())
    spec = registry.CorpusSpec(
        name="toy",
        module="toy",
        builder="Toy",
        summary="grey squares",
        tasks=("caption", "name"),
        licence="MIT",
        seed=1_000,
    )
    monkeypatch.setattr(registry, "CORPORA", {"toy": spec})
    monkeypatch.setattr(build, "module_of", lambda name: module)
    monkeypatch.setattr(Toy, "fail", False)
    return module
