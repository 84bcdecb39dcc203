"""The conversion gives the same bytes each time, and says what it needs."""

import sys

import jax
import jax.numpy as jnp
import pytest

from mmllm import bundle
from mmllm.export import signatures
from mmllm.export.targets.litert import codes, convert
from tests.tiny_litert import CONFIG, Made

pytestmark = pytest.mark.export


@pytest.mark.slow
def test_converting_twice_gives_the_same_bytes(made: Made):
    held = jax.tree.map(jnp.asarray, made.bundle.params)
    again = convert.convert(signatures.signatures(CONFIG, held))
    folded = codes.folds(CONFIG, made.bundle.params)
    file = codes.put_codes(again, made.bundle.coded, folded)
    assert file == (made.folder / bundle.LITERT).read_bytes()


def test_without_tensorflow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"needs tensorflow: pip install 'mmllm\[export\]'"
    ):
        convert.convert({})
