"""The JAX engine against the model itself: padding to buckets changes nothing."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm import bundle as bundle_lib
from mmllm import models
from mmllm.runtime import decode
from mmllm.runtime.engines import jax as jax_engine
from tests import tiny_bundle

TOLERANCE = 2e-5  # float32 sums in another order
C = tiny_bundle.CONFIG


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path) -> bundle_lib.Bundle:
    return bundle_lib.load(bundle_folder)


@pytest.fixture(scope="module")
def engine(bundle: bundle_lib.Bundle) -> jax_engine.JaxEngine:
    return jax_engine.JaxEngine(bundle)


def pixels(rows: int) -> np.ndarray:
    shape = (rows, C.image_side, C.image_side, 3)
    return np.random.default_rng(rows).uniform(0, 255, shape).astype(np.float32)


def direct(bundle: bundle_lib.Bundle, method: str, *inputs: np.ndarray) -> np.ndarray:
    model = models.build(bundle.config)
    arrays = [jnp.asarray(value) for value in inputs]
    call = jax.jit(lambda *given: model.apply({"params": bundle.params}, *given, method=method))
    return np.asarray(call(*arrays))


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_padding_a_batch_changes_no_row(engine, bundle, rows: int):
    found = engine.encode_image(pixels(rows))
    assert found.shape == (rows, C.prefix_length, C.width)
    np.testing.assert_allclose(
        found, direct(bundle, "encode_image", pixels(rows)), atol=TOLERANCE, rtol=0
    )


def test_a_batch_larger_than_the_largest_bucket_is_cut(engine, bundle):
    found = engine.embed_image(pixels(70))
    np.testing.assert_allclose(
        found, direct(bundle, "embed_image", pixels(70)), atol=TOLERANCE, rtol=0
    )
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1.0, atol=TOLERANCE)


def test_lines_and_texts_go_the_same_way(engine, bundle):
    lines = np.random.default_rng(0).uniform(0, 255, (2, C.line_height, C.line_width))
    lines = lines.astype(np.float32)
    np.testing.assert_allclose(
        engine.read_lines(lines), direct(bundle, "read_lines", lines), atol=1e-4, rtol=0
    )
    ids = np.array([[80, 90, 3, 0], [80, 3, 0, 0]], np.int32)
    np.testing.assert_allclose(
        engine.embed_text(ids), direct(bundle, "embed_text", ids), atol=TOLERANCE, rtol=0
    )


def test_decoding_with_the_cache_equals_prefill_of_the_whole(engine):
    prefix = engine.encode_image(pixels(3))
    prompts = decode.pad_prompts([[70], [71, 150, 160], [72, 151]], C.max_text)
    tokens = np.array([[200, 210], [201, 211], [202, 212]], np.int32)
    _, cache = engine.prefill(prefix, prompts.ids)
    for count in range(2):
        position = C.prefix_length + prompts.lengths + count
        logits, cache = engine.decode_step(tokens[:, count], position.astype(np.int32), cache)
    for row in range(3):
        length = int(prompts.lengths[row])
        whole = np.concatenate([prompts.ids[row, :length], tokens[row]])[None].astype(np.int32)
        full, _ = engine.prefill(prefix[row : row + 1], whole)
        np.testing.assert_allclose(logits[row], full[0, -1], atol=1e-4, rtol=0)


def test_rows_of_a_cache_can_be_taken_and_repeated(engine):
    prefix = engine.encode_image(pixels(2))
    prompts = decode.pad_prompts([[70], [71]], C.max_text)
    position = np.full(3, C.prefix_length + 1, np.int32)
    _, cache = engine.prefill(prefix, prompts.ids)
    token = np.full(3, 200, np.int32)
    mixed, _ = engine.decode_step(token, position, engine.take_rows(cache, np.array([1, 1, 0])))
    _, cache = engine.prefill(prefix, prompts.ids)
    plain, _ = engine.decode_step(token[:2], position[:2], cache)
    np.testing.assert_allclose(mixed, plain[[1, 1, 0]], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (2, 8), (8, 8), (9, 64), (64, 64)])
def test_buckets(rows: int, size: int):
    assert jax_engine.bucket(rows) == size


@pytest.mark.parametrize("rows", [0, 65])
def test_too_many_rows_for_one_decoding_batch_are_refused(rows: int):
    with pytest.raises(ValueError, match="rows must be 1 to 64"):
        jax_engine.bucket(rows)


def test_an_empty_batch_is_refused(engine):
    with pytest.raises(ValueError, match="at least one row"):
        engine.encode_image(pixels(0))


def test_tensors_that_do_not_fit_the_config_are_named(bundle):
    params = dict(bundle.params) | {"embed": {"table": np.zeros((5, C.width), np.float32)}}
    wrong = dataclasses.replace(bundle, params=params)
    with pytest.raises(ValueError, match='does not fit its config.*"table" in "/embed"'):
        jax_engine.JaxEngine(wrong).embed_text(np.ones((1, 4), np.int32))


def test_one_compilation_a_bucket(engine):
    engine.encode_image(pixels(2))
    with jax.log_compiles(), jax.checking_leaks():
        before = engine._encode_image.func._cache_size()
        for rows in (2, 3, 5, 8):
            engine.encode_image(pixels(rows))
        assert engine._encode_image.func._cache_size() == before


def test_compilations_can_be_kept(tmp_path: Path):
    old = jax.config.values["jax_compilation_cache_dir"]
    try:
        jax_engine.keep_compilations(tmp_path)
        assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path)
    finally:
        jax.config.update("jax_compilation_cache_dir", old)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
