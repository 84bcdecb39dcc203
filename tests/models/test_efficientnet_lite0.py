"""The backbone equals two other implementations of the same weights, with batch norms unfolded."""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from mmllm.common import paths
from mmllm.data import packages, pretrained
from mmllm.models import efficientnet_lite0
from tests import tiny_backbone

# The bound the model promises against a reference run; the outputs are of order 10.
TOLERANCE = 1e-4
# The same sums in another order, in float32.
ROUNDING = 2e-5
LEVELS = ("14x14x112", "7x7x320")
# Source: PyTorch Image Models, results-imagenet.csv, tf_efficientnet_lite0 (classifier included).
PUBLISHED_MILLIONS = 4.65
CLASSIFIER_PARAMETERS = 320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000


def naive_convolution(x: np.ndarray, kernel: np.ndarray, stride: int, groups: int) -> np.ndarray:
    """NCHW convolution with SAME padding, window by window, in float64."""
    batch, channels, *sizes = x.shape
    outputs, _, side, _ = kernel.shape
    rows, columns = (int(np.ceil(size / stride)) for size in sizes)
    padding = []
    for size, count in zip(sizes, (rows, columns), strict=True):
        total = max((count - 1) * stride + side - size, 0)
        padding.append((total // 2, total - total // 2))
    x = np.pad(x, ((0, 0), (0, 0), *padding))
    result = np.zeros((batch, outputs, rows, columns))
    grouped = kernel.reshape(groups, outputs // groups, -1)
    for i in range(rows):
        for j in range(columns):
            window = x[:, :, i * stride : i * stride + side, j * stride : j * stride + side]
            window = window.reshape(batch, groups, -1)
            result[:, :, i, j] = np.einsum("bgi,goi->bgo", window, grouped).reshape(batch, -1)
    return result


REPEATS, STRIDES = (1, 2, 2, 3, 3, 4, 1), (1, 2, 2, 2, 1, 2, 1)


def reference(weights: dict[str, np.ndarray], pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Second implementation, as PyTorch runs it: NCHW, float64, batch norms apart."""

    def layer(x: np.ndarray, name: str, norm: str, stride: int, groups: int, act: bool):
        x = naive_convolution(x, weights[f"{name}.weight"].astype(np.float64), stride, groups)
        gain, bias, mean, variance = (
            weights[f"{norm}.{part}"].astype(np.float64)[:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        x = (x - mean) / np.sqrt(variance + 1e-3) * gain + bias
        return np.clip(x, 0, 6) if act else x

    x = (pixels.astype(np.float64) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    x = layer(x.transpose(0, 3, 1, 2), "_conv_stem", "_bn0", 2, 1, True)
    index, levels = 0, {}
    for stage, (count, stride) in enumerate(zip(REPEATS, STRIDES, strict=True)):
        for repeat in range(count):
            block, y = f"_blocks.{index}", x
            if f"{block}._expand_conv.weight" in weights:
                y = layer(y, f"{block}._expand_conv", f"{block}._bn0", 1, 1, True)
            step = stride if repeat == 0 else 1
            y = layer(y, f"{block}._depthwise_conv", f"{block}._bn1", step, y.shape[1], True)
            y = layer(y, f"{block}._project_conv", f"{block}._bn2", 1, 1, False)
            x = x + y if repeat else y
            index += 1
        levels[stage] = x.transpose(0, 2, 3, 1)
    return {"14x14x112": levels[4], "7x7x320": levels[6]}


def onnx_session(weights: dict[str, np.ndarray]) -> onnxruntime.InferenceSession:
    """Builds the network from ONNX's own Conv and BatchNormalization; input is normalised NCHW."""
    nodes, constants = [], []

    def constant(value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value.astype(np.float32), f"c{len(constants)}"))
        return constants[-1].name

    def node(operator: str, inputs: list[str], output: str = "", **attributes) -> str:
        output = output or f"t{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    zero, six = constant(np.array(0)), constant(np.array(6))

    def layer(x: str, name: str, norm: str, stride: int, depthwise: bool, act: bool) -> str:
        kernel = weights[f"{name}.weight"]
        groups = kernel.shape[0] if depthwise else 1
        x = node(
            "Conv", [x, constant(kernel)], strides=[stride] * 2, group=groups, auto_pad="SAME_UPPER"
        )
        parts = ("weight", "bias", "running_mean", "running_var")
        inputs = [x, *(constant(weights[f"{norm}.{part}"]) for part in parts)]
        x = node("BatchNormalization", inputs, epsilon=1e-3)
        return node("Clip", [x, zero, six]) if act else x

    x = layer("pixels", "_conv_stem", "_bn0", 2, False, True)
    index, names = 0, []
    for count, stride in zip(REPEATS, STRIDES, strict=True):
        for repeat in range(count):
            block, y = f"_blocks.{index}", x
            if f"{block}._expand_conv.weight" in weights:
                y = layer(y, f"{block}._expand_conv", f"{block}._bn0", 1, False, True)
            step = stride if repeat == 0 else 1
            y = layer(y, f"{block}._depthwise_conv", f"{block}._bn1", step, True, True)
            y = layer(y, f"{block}._project_conv", f"{block}._bn2", 1, False, False)
            x = node("Add", [x, y]) if repeat else y
            index += 1
        names.append(x)
    outputs = [
        node("Identity", [names[stage]], level) for stage, level in zip((4, 6), LEVELS, strict=True)
    ]
    shape = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "lite0",
        [helper.make_tensor_value_info("pixels", shape, ["b", 3, "y", "x"])],
        [helper.make_tensor_value_info(level, shape, None) for level in outputs],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return onnxruntime.InferenceSession(model.SerializeToString())


def apply(weights: dict[str, np.ndarray], level: str, depthwise: str, pixels: np.ndarray):
    model = efficientnet_lite0.EfficientNetLite0(level=level, depthwise=depthwise)
    params = efficientnet_lite0.convert_weights(weights, level)
    return jax.jit(model.apply)({"params": params}, jnp.asarray(pixels))


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return tiny_backbone.random_weights(np.random.default_rng(0))


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    # sides that are no multiples of 32: the odd pixel of SAME padding matters
    return np.random.default_rng(1).uniform(0, 255, (2, 34, 49, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(weights, pixels) -> dict[str, np.ndarray]:
    return reference(weights, pixels)


@pytest.mark.parametrize("depthwise", ["shift", "conv"])
def test_both_levels_equal_a_naive_network_with_its_batch_norms_apart(
    weights, pixels, expected, depthwise
):
    for level in LEVELS:
        result = apply(weights, level, depthwise, pixels)
        scale = np.abs(expected[level]).max()
        np.testing.assert_allclose(result / scale, expected[level] / scale, atol=TOLERANCE, rtol=0)


@pytest.mark.real_cache
def test_the_imagenet_weights_give_what_onnx_runtime_gives():
    folder = packages.PACKAGES[pretrained.EFFICIENTNET_LITE0.package].folder
    if not (paths.data_dir() / "packages" / folder).is_dir():
        pytest.skip("the ImageNet weights are not in the data cache; any training fetches them")
    weights = pretrained.efficientnet_lite0_weights()
    pixels = np.random.default_rng(2).uniform(0, 255, (1, 224, 224, 3)).astype(np.float32)
    mean, std = (
        np.asarray(x, np.float32) for x in (efficientnet_lite0.MEAN, efficientnet_lite0.STD)
    )
    normalised = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    expected = onnx_session(weights).run(list(LEVELS), {"pixels": normalised})
    for level, value in zip(LEVELS, expected, strict=True):
        result = apply(weights, level, "shift", pixels)
        assert "x".join(map(str, result.shape[1:])) == level
        value = np.asarray(value).transpose(0, 2, 3, 1)
        np.testing.assert_allclose(result, value, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("side", [1, 4, 7, 8])
def test_shifted_products_equal_the_convolution(kernel, stride, side):
    rng = np.random.default_rng(side)
    x = jnp.asarray(rng.standard_normal((2, side, side + 1, 6)), jnp.float32)
    w = jnp.asarray(rng.standard_normal((kernel, kernel, 6)), jnp.float32)
    shifts = efficientnet_lite0.depthwise_by_shifts(x, w, stride)
    convolution = efficientnet_lite0.depthwise_by_convolution(x, w, stride)
    np.testing.assert_allclose(shifts, convolution, atol=ROUNDING, rtol=0)


def test_a_batch_norm_folds_into_hand_worked_numbers():
    weights = {
        "c.weight": np.full((1, 1, 1, 1), 3.0),
        "n.weight": np.array([2.0]),
        "n.bias": np.array([5.0]),
        "n.running_mean": np.array([1.5]),
        "n.running_var": np.array([0.249]),  # plus epsilon .001: a standard deviation of one half
    }
    kernel, bias = efficientnet_lite0.fold_batch_norm(weights, "c", "n")
    assert kernel.item() == 12.0  # 3 * 2 / .5
    assert bias.item() == -1.0  # 5 - 1.5 * 2 / .5


@pytest.mark.parametrize("level", LEVELS)
def test_converted_weights_have_the_shapes_of_fresh_parameters(weights, level):
    model = efficientnet_lite0.EfficientNetLite0(level=level)
    pixels = jnp.zeros((1, 64, 64, 3))
    fresh = jax.eval_shape(model.init, jax.random.key(0), pixels)["params"]
    converted = efficientnet_lite0.convert_weights(weights, level)
    shapes = [
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (fresh, converted)
    ]
    assert shapes[0] == shapes[1]


def test_the_parameter_count_is_the_published_one(weights):
    leaves = jax.tree_util.tree_leaves_with_path(efficientnet_lite0.convert_weights(weights))
    # folding keeps one of a batch norm's two trained numbers a channel
    count = sum(leaf.size * (2 if "bias" in str(path) else 1) for path, leaf in leaves)
    millions = (count + CLASSIFIER_PARAMETERS) / 1e6
    assert round(millions, 2) == PUBLISHED_MILLIONS


def test_an_unknown_level_and_a_missing_tensor_are_named(weights):
    with pytest.raises(ValueError, match=r"level must be one of .*14x14x112.*got '9x9'"):
        efficientnet_lite0.convert_weights(weights, "9x9")
    with pytest.raises(ValueError, match=r"depthwise must be one of .*shift.*got 'fft'"):
        apply(weights, "7x7x320", "fft", np.zeros((1, 32, 32, 3), np.float32))
    without = {name: value for name, value in weights.items() if name != "_blocks.3._bn1.bias"}
    with pytest.raises(ValueError, match=r"_blocks\.3\._bn1\.bias"):
        efficientnet_lite0.convert_weights(without)


@pytest.mark.slow
def test_a_backbone_cut_at_a_level_and_joined_again_is_the_whole():
    whole = efficientnet_lite0.EfficientNetLite0()
    frozen = efficientnet_lite0.EfficientNetLite0(level="14x14x112")
    trainable = efficientnet_lite0.EfficientNetLite0(entry="14x14x112")
    params = efficientnet_lite0.convert_weights(
        tiny_backbone.random_weights(np.random.default_rng(3))
    )
    pixels = jnp.asarray(np.random.default_rng(4).uniform(0, 255, (1, 64, 64, 3)), jnp.float32)
    middle = frozen.apply({"params": params}, pixels)
    expected = np.asarray(whole.apply({"params": params}, pixels))
    joined = np.asarray(trainable.apply({"params": params}, middle))
    np.testing.assert_allclose(joined, expected, atol=ROUNDING * np.abs(expected).max())
    names = efficientnet_lite0.block_names("7x7x320")
    assert names[: len(efficientnet_lite0.block_names("14x14x112"))] == names[:11]
    assert set(params) == {"stem", *names}
