"""The codes of the bundle in the LiteRT file, bit for bit; what differs is found."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm import bundle, models
from mmllm.common import tensors
from mmllm.export import signatures
from mmllm.export.targets.litert import codes, convert, flatbuffer
from mmllm.models import efficientnet_lite0
from mmllm.quant import rules, tree
from mmllm.quant.coded import Coded
from mmllm.runtime.engines.litert import LiteRtEngine
from tests.tiny_backbone import random_weights
from tests.tiny_litert import CONFIG, Made

pytestmark = pytest.mark.export
UP = "encoder/block_0/mlp/up/kernel"


def test_the_file_has_the_codes_of_the_bundle_and_the_same_bytes_each_time(made: Made):
    folded = codes.folds(CONFIG, made.bundle.params)
    file = codes.put_codes(made.converted, made.bundle.coded, folded)
    assert file == (made.folder / bundle.LITERT).read_bytes()
    codes.check(file, made.bundle.coded, made.bundle.params, folded)
    kinds = {
        (reading.tensor.name or b"").decode(): flatbuffer.type_name(reading.tensor)
        for reading in flatbuffer.readings(flatbuffer.read(file))
    }
    assert kinds["embed/table"] == "INT4"
    assert kinds["decoder/block_1/mlp/down/kernel"] == "INT8"
    assert kinds["encoder/block_0/attention/query/kernel"] == "INT2"


@pytest.mark.parametrize("path", ["embed/table", UP])
def test_other_codes_than_the_bundle_has_are_found(made: Made, path: str):
    right = made.bundle.coded[path]
    other = right.codes.copy()
    other[0, 0] = 0 if other[0, 0] else 1
    wrong = {**made.bundle.coded, path: Coded(other, right.scale, right.grid)}
    file = (made.folder / bundle.LITERT).read_bytes()
    with pytest.raises(ValueError, match=f"the codes of {path} differ"):
        codes.check(file, wrong, made.bundle.params, codes.folds(CONFIG, made.bundle.params))


def test_a_weight_that_stayed_float_is_found(made: Made):
    folded = codes.folds(CONFIG, made.bundle.params)
    with pytest.raises(ValueError, match="FLOAT32 weight of shape .* none of the bundle's"):
        codes.check(made.converted, made.bundle.coded, made.bundle.params, folded)
    some = {path: each for path, each in made.bundle.coded.items() if path != UP}
    file = codes.put_codes(made.converted, some, folded)
    codes.check(file, some, made.bundle.params, folded)
    with pytest.raises(ValueError, match="FLOAT16 weight of shape .* none of the bundle's"):
        codes.check(file, made.bundle.coded, made.bundle.params, folded)


def test_a_bundle_without_codes_is_looked_up_too(made: Made):
    folded = codes.folds(CONFIG, made.bundle.params)
    codes.check(made.converted, {}, made.bundle.params, folded)
    changed = tensors.unflatten(dict(tensors.flatten(made.bundle.params)))
    changed["decoder"]["block_0"]["mlp"]["up"]["kernel"] = np.ones((4, 4), np.float32)
    with pytest.raises(ValueError, match="none of the bundle's"):
        codes.check(made.converted, {}, changed, folded)


def test_a_float_weight_that_changed_is_found(made: Made):
    """What the bundle leaves float, the file must hold too: here a kernel of zeros."""
    folded = codes.folds(CONFIG, made.bundle.params)
    some = {path: each for path, each in made.bundle.coded.items() if path != UP}
    model = flatbuffer.read(codes.put_codes(made.converted, some, folded))
    (half,) = {
        reading.tensor.buffer
        for reading in flatbuffer.weights(model, codes.HALVED)
        if flatbuffer.type_name(reading.tensor) == "FLOAT16"
    }
    model.buffers[half].data = np.zeros(len(model.buffers[half].data), np.uint8)
    with pytest.raises(ValueError, match="FLOAT16 weight of shape .* none of the bundle's"):
        codes.check(flatbuffer.write(model), some, made.bundle.params, folded)


def test_the_scale_of_a_folded_weight_is_the_folded_one(made: Made):
    file = (made.folder / bundle.LITERT).read_bytes()
    with pytest.raises(ValueError, match="the scales of embedding_token/kernel differ"):
        codes.check(file, made.bundle.coded, made.bundle.params, {})


def test_a_weight_that_the_converted_file_lacks_is_named(made: Made):
    extra = Coded(np.ones((8, 4), np.int8), np.ones(8, np.float32), "int2")
    with pytest.raises(ValueError, match="lacks the weights nowhere/kernel"):
        codes.put_codes(made.converted, {"nowhere/kernel": extra}, {})


def test_a_grid_with_an_offset_is_refused(made: Made):
    seq = Coded(np.ones((8, 4), np.int8), np.ones(8, np.float32), "seq")
    with pytest.raises(ValueError, match="grid seq, which LiteRT cannot express"):
        codes.put_codes(made.converted, {"a/kernel": seq}, {})


def test_folds_hold_a_factor_an_output_channel(made: Made):
    flat = dict(tensors.flatten(made.bundle.params))
    for path, factor in codes.folds(CONFIG, made.bundle.params).items():
        assert factor.shape == (flat[path].shape[1],)


def test_other_scales_than_the_bundle_has_are_found(made: Made):
    right = made.bundle.coded[UP]
    wrong = {**made.bundle.coded, UP: Coded(right.codes, 2 * right.scale, right.grid)}
    file = (made.folder / bundle.LITERT).read_bytes()
    folded = codes.folds(CONFIG, made.bundle.params)
    codes.check(file, made.bundle.coded, made.bundle.params, folded)
    with pytest.raises(ValueError, match=f"the scales of {UP} differ"):
        codes.check(file, wrong, made.bundle.params, folded)


@pytest.mark.slow
def test_a_backbone_that_ends_in_a_residual_is_exported(tmp_path: Path):
    """Only without a residual does the converter fold the affine into the last block's weights."""
    level = "14x14x112"
    config = dataclasses.replace(
        CONFIG, backbone="efficientnet_lite0", level=level, image_side=224, merge=7
    )
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: models.init_params(config, jax.random.key(0)))
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.5, 2, leaf.shape), jnp.float32),
        {part: shapes[part] for part in ("feature_affine", "image_embedding")},
    )
    params["backbone"] = efficientnet_lite0.convert_weights(random_weights(rng), level)
    planned = tree.plan(params, rules.parse((r".*(stem|depthwise)/.* float", r".*/kernel int8")))
    coded = tree.quantize(params, tree.init_scales(params, planned), planned)
    params = tree.dequantize(params, coded)
    called = {"embed_image": signatures.signatures(config, params)["embed_image"]}
    file = convert.convert(called)

    folded = codes.folds(config, params)
    codes.check(codes.put_codes(file, coded, folded), coded, params, folded)
    path = tmp_path / "model.tflite"
    path.write_bytes(file)  # the float file, whose numbers no rounding hides
    pixels = rng.uniform(0, 255, (1, 224, 224, 3)).astype(np.float32)
    found = LiteRtEngine(path, config).embed_image(pixels)
    direct = jax.jit(
        lambda pixels: models.build(config).apply({"params": params}, pixels, method="embed_image")
    )
    np.testing.assert_allclose(found, direct(pixels), atol=1e-4)
