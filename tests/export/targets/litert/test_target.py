"""The LiteRT file of a bundle: the numbers of JAX with int8 inputs, and every byte explained."""

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm import bundle, models
from mmllm.export.targets.litert import budget, convert, target
from mmllm.quant.coded import Coded
from mmllm.quant.rules import Rule
from mmllm.runtime import decode
from mmllm.runtime.engines.jax import JaxEngine
from mmllm.runtime.engines.litert import LiteRtEngine
from mmllm.runtime.model import MobileMultiModalLLM
from tests.tiny_litert import CONFIG, Made

pytestmark = pytest.mark.export
# One activation whose rounding falls the other way moves its row by a 255th of its range.
FLIPS = 0.02


@pytest.fixture(scope="module")
def engines(made: Made) -> tuple[LiteRtEngine, JaxEngine]:
    return LiteRtEngine(made.folder / bundle.LITERT, CONFIG, 1), JaxEngine(made.bundle)


def apart(prediction: np.ndarray, target: np.ndarray) -> float:
    assert prediction.shape == target.shape
    return float(np.linalg.norm(prediction - target) / np.linalg.norm(target))


def test_every_signature_gives_the_numbers_of_jax(engines: tuple[LiteRtEngine, JaxEngine]):
    lite, jaxed = engines
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)
    lines = rng.uniform(0, 255, (3, 8, 64)).astype(np.float32)
    ids = np.array([[5, 60, 7, 0], [5, 61, 62, 7], [5, 7, 0, 0]], np.int32)
    assert apart(lite.embed_image(pixels), jaxed.embed_image(pixels)) < FLIPS
    prefix = jaxed.encode_image(pixels)
    assert apart(lite.encode_image(pixels), prefix) < FLIPS
    assert apart(lite.embed_text(ids), jaxed.embed_text(ids)) < FLIPS
    assert apart(lite.read_lines(lines), jaxed.read_lines(lines)) < FLIPS
    found, cache = lite.prefill(prefix, ids)
    own, jax_cache = jaxed.prefill(prefix, ids)
    assert apart(found, own) < FLIPS
    order = np.array([2, 0, 1], np.int32)
    cache, jax_cache = lite.take_rows(cache, order), jaxed.take_rows(jax_cache, order)
    position = np.array([2, 3, 4], np.int32) + CONFIG.prefix_length
    for token in (8, 9):
        tokens = np.full(3, token, np.int32)
        found, cache = lite.decode_step(tokens, position, cache)
        own, jax_cache = jaxed.decode_step(tokens, position, jax_cache)
        assert apart(found, own) < FLIPS
        position = position + 1


def test_int8_inputs_make_a_difference_that_the_file_shares(made: Made, engines):
    whole = models.build(CONFIG)
    ids = np.array([[5, 60, 7]], np.int32)
    params = jax.tree.map(jnp.asarray, made.bundle.params)
    plain = np.asarray(whole.apply({"params": params}, jnp.asarray(ids), method="embed_text"))
    assert apart(engines[0].embed_text(ids), engines[1].embed_text(ids)) < apart(
        engines[0].embed_text(ids), plain
    )


def test_the_budget_explains_every_byte(made: Made):
    file = (made.folder / bundle.LITERT).read_bytes()
    found = budget.of_file(file)
    assert sum(row["bytes"] for row in found["rows"]) == found["bytes"] == len(file)
    packed = {(row["part"], row["type"]): row for row in found["rows"]}
    table = made.bundle.coded["embed/table"].codes
    assert packed["token embedding", "INT4"] == {
        "part": "token embedding",
        "type": "INT4",
        "weights": table.size,
        "bytes": table.size // 2,
    }


def test_the_public_model_takes_the_file_by_default_and_says_what_jax_says(made: Made):
    lite = MobileMultiModalLLM.from_pretrained(made.folder, threads=1)
    assert isinstance(lite.engine, LiteRtEngine)
    other = MobileMultiModalLLM.from_pretrained(made.folder, engine="jax")
    pictures = [np.full((40, 40, 3), grey, np.uint8) for grey in (0, 90, 200)]
    assert lite.caption_batch(pictures) == other.caption_batch(pictures)
    assert "".join(lite.stream_caption(pictures[0])) == lite.caption(pictures[0])
    assert lite.caption(pictures[1], beam=3) == other.caption(pictures[1], beam=3)


def test_prompts_of_a_width_of_their_own_are_padded(engines):
    prompt = decode.pad_rows([[5, 60, 7]], CONFIG.max_text)
    assert engines[0].embed_text(prompt).shape == (1, CONFIG.embed_dim)
    with pytest.raises(ValueError, match=f"at most {CONFIG.max_text} tokens, got 41"):
        engines[0].embed_text(np.ones((1, 41), np.int32))


def test_export_writes_the_file_whole(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(convert, "convert", lambda found: made.converted)
    path = target.export(tmp_path, made.bundle)
    assert path.read_bytes() == (made.folder / bundle.LITERT).read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == [bundle.LITERT]


def test_a_damaged_file_of_a_bundle_is_refused(made: Made, tmp_path: Path):
    copy = Path(shutil.copytree(made.folder, tmp_path / "copy"))
    whole = (copy / bundle.LITERT).read_bytes()
    for damaged in (whole[:-9], whole[:-1] + bytes([whole[-1] ^ 1])):
        (copy / bundle.LITERT).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.cpu\.tflite is damaged"):
            MobileMultiModalLLM.from_pretrained(copy)
    (copy / bundle.LITERT).unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.cpu\.tflite is missing"):
        MobileMultiModalLLM.from_pretrained(copy)


def test_a_grid_with_an_offset_is_refused_before_the_conversion(made: Made, tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "convert", lambda found: pytest.fail("converted"))
    seq = Coded(np.ones((8, 4), np.int8), np.ones(8, np.float32), "seq")
    with pytest.raises(ValueError, match="a/kernel lies on grid seq"):
        target.export(tmp_path, dataclasses.replace(made.bundle, coded={"a/kernel": seq}))


def test_codes_whose_inputs_stay_float_are_refused(made: Made, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(convert, "convert", lambda found: pytest.fail("converted"))
    path = "encoder/block_0/mlp/up/kernel"
    rules = (Rule(path, "int2"), *made.bundle.rules)
    with pytest.raises(ValueError, match=f"inputs of {path} must be int8 for LiteRT"):
        target.export(tmp_path, dataclasses.replace(made.bundle, rules=rules))


def test_static_ranges_are_refused(made: Made, tmp_path: Path):
    static = (Rule("embed/table", "int4", "int8_static"),)
    with pytest.raises(ValueError, match=r"must be float or int8 for LiteRT .* got 'int8_static'"):
        target.export(tmp_path, dataclasses.replace(made.bundle, rules=static))
