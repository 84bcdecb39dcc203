"""Bundles as the service opens them: verified, described, and made into warm models."""

import shutil
from pathlib import Path

import pytest

from mmllm.runtime import model as model_lib
from mmllm.serve.engine import bundles


def test_a_bundle_says_what_it_is(nano):
    bundle = bundles.open_bundle("nano")
    assert bundle.name == "nano"
    assert bundle.fingerprint == nano.fingerprint
    assert bundle.languages == nano.languages
    assert bundle.config == nano.config
    assert bundle.engines == ("litert", "jax")
    assert bundle.tokenizer.encode("a cat") == nano.tokenizer.encode("a cat")


def test_the_chosen_engine_comes_first():
    assert bundles.open_bundle("nano", "jax").engines == ("jax", "litert")


def test_an_engine_whose_package_is_missing_is_no_fallback(monkeypatch):
    find = bundles.importlib.util.find_spec
    monkeypatch.setattr(
        bundles.importlib.util, "find_spec", lambda name: None if name == "jax" else find(name)
    )
    assert bundles.open_bundle("nano").engines == ("litert",)


def test_a_missing_or_damaged_bundle_is_refused(other_bundle: Path):
    with pytest.raises(FileNotFoundError, match="no model 'nowhere'"):
        bundles.open_bundle("nowhere")
    with (other_bundle / "model.cpu.tflite").open("r+b") as file:
        file.write(b"\0\0\0\0")
    with pytest.raises(ValueError, match="damaged"):
        bundles.open_bundle(str(other_bundle))


def test_each_call_makes_a_warm_model_of_one_thread(nano, picture_bytes):
    make = bundles.open_bundle("nano").maker("litert")
    one, other = make(), make()
    assert one is not other
    assert one.caption(picture_bytes) == nano.caption(picture_bytes)


def test_a_bundle_that_changed_since_is_not_mixed_with_what_serves(other_bundle: Path):
    bundle = bundles.open_bundle(str(other_bundle))
    assert bundle.fingerprint != bundles.open_bundle("nano").fingerprint
    shutil.rmtree(other_bundle)
    shutil.copytree(model_lib.locate("nano"), other_bundle)
    with pytest.raises(ValueError, match="was changed while it served"):
        bundle.maker("litert")()


@pytest.mark.slow
def test_threads_share_the_model_of_jax(nano, picture_bytes):
    make = bundles.open_bundle("nano").maker("jax")
    assert make() is make()
    assert make().caption(picture_bytes) == nano.caption(picture_bytes)
