"""The LiteRT file: the codes of the bundle bit for bit, and the numbers of JAX with int8 inputs."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm import bundle, models
from mmllm.common import tensors
from mmllm.export import budget, flatbuffer, litert
from mmllm.quant.coded import Coded
from mmllm.runtime import decode
from mmllm.runtime.jax_engine import JaxEngine
from mmllm.runtime.litert_engine import LiteRtEngine
from mmllm.runtime.model import MobileMultiModalLLM
from tests.tiny_litert import CONFIG, Made

pytestmark = pytest.mark.export
# One activation whose rounding falls the other way moves its row by a 255th of its range.
FLIPS = 0.02
UP = "encoder/block_0/mlp/up/kernel"


@pytest.fixture(scope="module")
def engines(made: Made) -> tuple[LiteRtEngine, JaxEngine]:
    return LiteRtEngine(made.folder / bundle.LITERT, CONFIG, 1), JaxEngine(made.bundle)


def apart(got: np.ndarray, want: np.ndarray) -> float:
    assert got.shape == want.shape
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def test_the_file_has_the_codes_of_the_bundle_and_the_same_bytes_each_time(made: Made):
    folded = litert.folds(CONFIG, made.bundle.params)
    file = litert.put_codes(made.converted, made.bundle.coded, folded)
    assert file == (made.folder / bundle.LITERT).read_bytes()
    litert.check(file, made.bundle.coded, made.bundle.params, folded)
    kinds = {
        (reading.tensor.name or b"").decode(): flatbuffer.type_name(reading.tensor)
        for reading in flatbuffer.readings(flatbuffer.read(file))
    }
    assert kinds["embed/table"] == "INT4"
    assert kinds["decoder/block_1/mlp/down/kernel"] == "INT8"
    assert kinds["encoder/block_0/attention/query/kernel"] == "INT2"


@pytest.mark.slow
def test_converting_twice_gives_the_same_bytes(made: Made):
    held = jax.tree.map(jnp.asarray, made.bundle.params)
    again = litert.convert(litert.signatures(CONFIG, held))
    folded = litert.folds(CONFIG, made.bundle.params)
    file = litert.put_codes(again, made.bundle.coded, folded)
    assert file == (made.folder / bundle.LITERT).read_bytes()


@pytest.mark.parametrize("path", ["embed/table", UP])
def test_other_codes_than_the_bundle_has_are_found(made: Made, path: str):
    right = made.bundle.coded[path]
    codes = right.codes.copy()
    codes[0, 0] = 0 if codes[0, 0] else 1
    wrong = {**made.bundle.coded, path: Coded(codes, right.scale, right.grid)}
    file = (made.folder / bundle.LITERT).read_bytes()
    with pytest.raises(ValueError, match=f"the codes of {path} differ"):
        litert.check(file, wrong, made.bundle.params, litert.folds(CONFIG, made.bundle.params))


def test_a_weight_that_stayed_float_is_found(made: Made):
    folded = litert.folds(CONFIG, made.bundle.params)
    with pytest.raises(ValueError, match="FLOAT32 weight of shape .* none of the bundle's"):
        litert.check(made.converted, made.bundle.coded, made.bundle.params, folded)
    some = {path: each for path, each in made.bundle.coded.items() if path != UP}
    file = litert.put_codes(made.converted, some, folded)
    litert.check(file, some, made.bundle.params, folded)
    with pytest.raises(ValueError, match="FLOAT16 weight of shape .* none of the bundle's"):
        litert.check(file, made.bundle.coded, made.bundle.params, folded)


def test_a_bundle_without_codes_is_looked_up_too(made: Made):
    folded = litert.folds(CONFIG, made.bundle.params)
    litert.check(made.converted, {}, made.bundle.params, folded)
    changed = tensors.unflatten(dict(tensors.flatten(made.bundle.params)))
    changed["decoder"]["block_0"]["mlp"]["up"]["kernel"] = np.ones((4, 4), np.float32)
    with pytest.raises(ValueError, match="none of the bundle's"):
        litert.check(made.converted, {}, changed, folded)


def test_a_float_weight_that_changed_is_found(made: Made):
    """What the bundle leaves float, the file must hold too: here a kernel of zeros."""
    folded = litert.folds(CONFIG, made.bundle.params)
    some = {path: each for path, each in made.bundle.coded.items() if path != UP}
    model = flatbuffer.read(litert.put_codes(made.converted, some, folded))
    (kept,) = {
        reading.tensor.buffer
        for reading in flatbuffer.weights(model, litert.HALVED)
        if flatbuffer.type_name(reading.tensor) == "FLOAT16"
    }
    model.buffers[kept].data = np.zeros(len(model.buffers[kept].data), np.uint8)
    with pytest.raises(ValueError, match="FLOAT16 weight of shape .* none of the bundle's"):
        litert.check(flatbuffer.write(model), some, made.bundle.params, folded)


def test_the_scale_of_a_folded_weight_is_the_folded_one(made: Made):
    file = (made.folder / bundle.LITERT).read_bytes()
    with pytest.raises(ValueError, match="the scales of embedding_token/kernel differ"):
        litert.check(file, made.bundle.coded, made.bundle.params, {})


def test_a_weight_that_the_converted_file_lacks_is_named(made: Made):
    extra = Coded(np.ones((8, 4), np.int8), np.ones(8, np.float32), "int2")
    with pytest.raises(ValueError, match="lacks the weights nowhere/kernel"):
        litert.put_codes(made.converted, {"nowhere/kernel": extra}, {})


def test_a_grid_with_an_offset_is_refused(made: Made):
    seq = Coded(np.ones((8, 4), np.int8), np.ones(8, np.float32), "seq")
    with pytest.raises(ValueError, match="grid seq, which LiteRT cannot express"):
        litert.put_codes(made.converted, {"a/kernel": seq}, {})


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
    got, cache = lite.prefill(prefix, ids)
    want, jax_cache = jaxed.prefill(prefix, ids)
    assert apart(got, want) < FLIPS
    order = np.array([2, 0, 1], np.int32)
    cache, jax_cache = lite.take_rows(cache, order), jaxed.take_rows(jax_cache, order)
    position = np.array([2, 3, 4], np.int32) + CONFIG.prefix_length
    for token in (8, 9):
        tokens = np.full(3, token, np.int32)
        got, cache = lite.decode_step(tokens, position, cache)
        want, jax_cache = jaxed.decode_step(tokens, position, jax_cache)
        assert apart(got, want) < FLIPS
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
    monkeypatch.setattr(litert, "convert", lambda found: made.converted)
    path = litert.export(tmp_path, CONFIG, made.bundle.params, made.bundle.coded)
    assert path.read_bytes() == (made.folder / bundle.LITERT).read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == [bundle.LITERT]


def test_folds_hold_a_factor_an_output_channel(made: Made):
    flat = dict(tensors.flatten(made.bundle.params))
    for path, factor in litert.folds(CONFIG, made.bundle.params).items():
        assert factor.shape == (flat[path].shape[1],)


def test_other_scales_than_the_bundle_has_are_found(made: Made):
    right = made.bundle.coded[UP]
    wrong = {**made.bundle.coded, UP: Coded(right.codes, 2 * right.scale, right.grid)}
    file = (made.folder / bundle.LITERT).read_bytes()
    folded = litert.folds(CONFIG, made.bundle.params)
    litert.check(file, made.bundle.coded, made.bundle.params, folded)
    with pytest.raises(ValueError, match=f"the scales of {UP} differ"):
        litert.check(file, wrong, made.bundle.params, folded)


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
    monkeypatch.setattr(litert, "convert", lambda found: pytest.fail("converted"))
    seq = Coded(np.ones((8, 4), np.int8), np.ones(8, np.float32), "seq")
    with pytest.raises(ValueError, match="a/kernel lies on grid seq"):
        litert.export(tmp_path, CONFIG, made.bundle.params, {"a/kernel": seq})


def test_static_ranges_are_refused():
    params = {"embed": {"amax": np.ones(()), "table": np.ones((4, 4))}}
    with pytest.raises(ValueError, match=r"must be float or int8 for LiteRT .* got embed/amax"):
        litert.signatures(CONFIG, params)
