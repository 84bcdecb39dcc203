"""The assembled model: causality, cache, padding, and the shapes of the full-size configs."""

import functools
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mobile, nano, tiny
from mmllm.common import config as config_lib
from mmllm.common import mesh
from mmllm.models import attention, build, heads, init_params
from mmllm.quant.rules import Rule

# Two orders of summation in float32 over at most 200 terms.
SUMMATION_TOLERANCE = 2e-5
GOLDEN = Path(__file__).parents[1] / "golden"
CONFIG = config_lib.resolve(tiny.get_config()).model
# Normed features have a sum of zero whatever the input: gradients need another combination.
DIRECTION = jax.random.normal(jax.random.key(4), (CONFIG.width,))


@pytest.fixture(scope="module")
def params():
    return init_params(CONFIG, jax.random.key(0))


@pytest.fixture(scope="module")
def prefix():
    shape = (2, CONFIG.prefix_length, CONFIG.width)
    return jax.random.normal(jax.random.key(1), shape)


@functools.partial(jax.jit, static_argnames="method")
def apply(params, *arguments, method) -> Any:
    return build(CONFIG).apply({"params": params}, *arguments, method=method)


def test_a_text_position_depends_on_nothing_after_it(params, prefix):
    ids = jnp.array([[5, 9, 11, 13, 7]])
    model = build(CONFIG)

    @jax.jit
    @jax.grad
    def slope(text, position):
        decoded: Any = model.apply(
            {"params": params}, prefix[:1], text, method=lambda m, p, t: m.decoder(p, t)[0]
        )
        return decoded[0, position] @ DIRECTION

    text = jnp.take(params["embed"]["table"], ids, axis=0)
    for position in range(ids.shape[1]):
        reach = np.abs(np.asarray(slope(text, position)[0])).sum(-1) > 0
        np.testing.assert_array_equal(reach, np.arange(ids.shape[1]) <= position)


def test_every_text_position_sees_the_whole_prefix(params, prefix):
    ids = jnp.array([[5, 9, 11]])

    def first_hidden(tokens):
        return apply(params, tokens, ids, method="decode_hidden")[0, 0] @ DIRECTION

    gradient = np.asarray(jax.grad(first_hidden)(prefix[:1]))[0]
    assert (np.abs(gradient).sum(-1) > 0).all()


def test_cached_decoding_equals_full_decoding(params, prefix):
    ids = jax.random.randint(jax.random.key(2), (2, 9), 4, CONFIG.vocab_size)
    full, _ = apply(params, prefix, ids, method="prefill")
    logits, cache = apply(params, prefix, ids[:, :3], method="prefill")
    np.testing.assert_allclose(logits, full[:, :3], atol=SUMMATION_TOLERANCE)
    for place in range(3, 9):
        position = jnp.int32(CONFIG.prefix_length + place)
        logits, cache = apply(params, ids[:, place], position, cache, method="decode_step")
        np.testing.assert_allclose(logits, full[:, place], atol=SUMMATION_TOLERANCE)


def test_rows_at_different_positions_decode_as_they_would_alone(params, prefix):
    ids = jnp.array([[5, 9, 11, 0], [6, 10, 12, 14]])
    logits, cache = apply(params, prefix, ids, method="prefill")
    position = CONFIG.prefix_length + jnp.array([3, 4])
    together, _ = apply(params, jnp.array([20, 21]), position, cache, method="decode_step")
    for row, length in ((0, 3), (1, 4)):
        alone = jnp.concatenate([ids[row, :length], jnp.array([20 + row])])[None]
        expected, _ = apply(params, prefix[row : row + 1], alone, method="prefill")
        np.testing.assert_allclose(together[row], expected[0, -1], atol=SUMMATION_TOLERANCE)


def test_padding_changes_no_text_embedding(params):
    short = jnp.array([[9, 30, 31, 3]])
    long = jnp.pad(short, ((0, 0), (0, 6)))
    one, other = (apply(params, ids, method="embed_text") for ids in (short, long))
    np.testing.assert_allclose(one, other, atol=SUMMATION_TOLERANCE)


def test_embeddings_have_unit_length(params):
    pixels = (
        jax.random.uniform(jax.random.key(3), (2, CONFIG.image_side, CONFIG.image_side, 3)) * 255
    )
    for embedding in (
        apply(params, pixels, method="embed_image"),
        apply(params, jnp.array([[9, 30, 3]]), method="embed_text"),
    ):
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=-1), 1.0, atol=1e-5)


def test_line_logits_have_a_class_for_the_blank_and_every_character(params):
    lines = jnp.zeros((2, CONFIG.line_height, CONFIG.line_width))
    logits = apply(params, lines, method="read_lines")
    assert logits.shape == (2, CONFIG.line_columns, CONFIG.charset_size + 1)


def test_a_prompt_longer_than_the_cache_is_refused(params, prefix):
    ids = jnp.ones((2, CONFIG.max_text + 1), jnp.int32)
    with pytest.raises(ValueError, match="at most max_text = 40 tokens, got 41"):
        apply(params, prefix, ids, method="prefill")


@pytest.mark.parametrize("module", [nano, mobile], ids=["nano", "mobile"])
def test_full_size_signatures_have_the_expected_shapes(module):
    config = config_lib.resolve(module.get_config()).model
    model = build(config)
    params = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))

    def shape_of(*arguments, method):
        return jax.eval_shape(
            lambda p, *a: model.apply({"params": p}, *a, method=method), params, *arguments
        )

    pixels = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    ids = jax.ShapeDtypeStruct((1, 4), jnp.int32)
    prefix = shape_of(pixels, method="encode_image")
    assert prefix.shape == (1, config.prefix_length, config.width)
    assert shape_of(pixels, method="embed_image").shape == (1, config.embed_dim)
    assert shape_of(ids, method="embed_text").shape == (1, config.embed_dim)
    logits, cache = shape_of(prefix, ids, method="prefill")
    assert logits.shape == (1, 4, config.vocab_size)
    room = config.prefix_length + config.max_text
    assert cache[0].key.shape == (1, config.kv_heads, room, config.head_dim)


def parameter_table(module) -> dict[str, list[int]]:
    config = config_lib.resolve(module.get_config()).model
    params = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {mesh.path_name(path): list(leaf.shape) for path, leaf in leaves}


def test_golden_parameter_tree_of_nano():
    path = GOLDEN / "nano_parameters.json"
    table = parameter_table(nano)
    if os.environ.get("MMLLM_UPDATE_GOLDEN") == "1":
        path.write_text(json.dumps(table, indent=0) + "\n")
    assert table == json.loads(path.read_text()), (
        "a name or shape changed: old checkpoints no longer fit"
    )


@pytest.mark.parametrize("module", [tiny, nano], ids=["patch", "efficientnet_lite0"])
@pytest.mark.parametrize("rules", [(), (Rule(".*", "float", "int8"),)], ids=["float", "int8"])
def test_every_method_takes_no_rows_and_gives_none(module, rules):
    """A task that a mixture leaves out comes as a batch of no rows."""
    config = config_lib.resolve(module.get_config()).model
    model, number = build(config, rules), jnp.float32
    params = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))

    def run(method, *shapes):
        inputs = [jax.ShapeDtypeStruct((0, *shape), kind) for shape, kind in shapes]
        found = jax.eval_shape(
            lambda p, *a: model.apply({"params": p}, *a, method=method), params, *inputs
        )
        assert {leaf.shape[0] for leaf in jax.tree.leaves(found)} == {0}, method

    picture = (config.image_side, config.image_side, 3), number
    prefix = (config.prefix_length, config.width), number
    ids = (4,), jnp.int32
    run("encode_image", picture)
    run("embed_image", picture)
    run("embed_text", ids)
    run("read_lines", ((config.line_height, config.line_width), number))
    run("name_prefix", ((config.embed_dim,), number))
    run("decode_hidden", prefix, ids, ids)
    run("prefill", prefix, ids)
    rows = config.prefix_length + config.max_text
    room = (config.kv_heads, rows, config.head_dim), number

    def step(m, token, position, *flat):
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return m.decode_step(token, position, tuple(attention.KeyValue(*pair) for pair in pairs))

    one = (), jnp.int32
    run(step, one, one, *[room] * (2 * config.decoder_blocks))


def test_gradients_of_a_largest_value_exist_without_rows():
    features = jnp.zeros((0, 2, 2, 3))
    assert jax.grad(lambda x: heads.max_pool(x).sum())(features).shape == features.shape
