"""Bundle -> one LiteRT file: several signatures over one set of packed weights.

JAX functions go through jax2tf and TensorFlow's converter as float32; then each weight that the
bundle holds as codes is put in the place of its float copy, so that what ships are the codes that
training ended with, never numbers quantized again. The file's FULLY_CONNECTED operations read them
with dynamic int8 activations.
"""

import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmllm import bundle
from mmllm.common import paths, tensors
from mmllm.common.config import ModelConfig
from mmllm.common.types import Params
from mmllm.export import flatbuffer
from mmllm.models import attention, efficientnet_lite0, layers
from mmllm.models import mmllm as model_lib
from mmllm.quant import coded as coded_lib
from mmllm.quant import grid as grid_lib
from mmllm.quant import packing
from mmllm.quant.coded import Coded

PROMPT_LENGTHS = (16, 64)
"""Tokens of a prompt or a text; a runtime pads to the next one."""

HALVED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
VERSIONS = {"FULLY_CONNECTED": 14, "EMBEDDING_LOOKUP": 5}
"""The first version of each operation that reads INT2. Source: LiteRT, op_version.cc."""


@dataclasses.dataclass(frozen=True)
class Signature:
    """A function of the file, with the shapes of its inputs in order."""

    function: Callable[..., dict[str, jax.Array]]
    inputs: Mapping[str, tuple[tuple[int, ...], type]]


def lengths(config: ModelConfig) -> tuple[int, ...]:
    """Prompt lengths of a model's signatures: those of PROMPT_LENGTHS that fit, and `max_text`."""
    return tuple(sorted({*(n for n in PROMPT_LENGTHS if n < config.max_text), config.max_text}))


def signatures(config: ModelConfig, params: Params) -> dict[str, Signature]:
    """Every signature of a model, for one row.

    Names: encode_image, embed_image, read_lines, decode_step, and embed_text_T and prefill_T for
    each prompt length T. A cache is key_B and value_B for each decoder block B.

    Raises:
      ValueError: inputs that are rounded per tensor, by a static range.
    """
    if static := [path for path, _ in tensors.flatten(params) if path.endswith(f"/{layers.AMAX}")]:
        raise ValueError(
            "inputs must be float or int8 for LiteRT on a CPU, which rounds each row by a range of "
            f"its own, got {static[0]}, the range of int8_static inputs"
        )
    model = model_lib.build(config, exported=True)

    def call(method: str, *inputs: Any) -> Any:
        return model.apply({"params": params}, *inputs, method=method)

    def cached(cache: Any) -> dict[str, jax.Array]:
        return {
            f"{name}_{block}": getattr(pair, name)
            for block, pair in enumerate(cache)
            for name in ("key", "value")
        }

    def prefill(prefix: jax.Array, ids: jax.Array) -> dict[str, jax.Array]:
        logits, cache = call("prefill", prefix, ids)
        return {"logits": logits, **cached(cache)}

    def decode_step(ids: jax.Array, position: jax.Array, **flat: jax.Array) -> dict[str, jax.Array]:
        pairs = tuple(
            attention.KeyValue(flat[f"key_{block}"], flat[f"value_{block}"])
            for block in range(config.decoder_blocks)
        )
        logits, cache = call("decode_step", ids, position, pairs)
        return {"logits": logits, **cached(cache)}

    side, number = config.image_side, np.float32
    pixels = {"pixels": ((1, side, side, 3), number)}
    lines = {"lines": ((1, config.line_height, config.line_width), number)}
    prefix = ((1, config.prefix_length, config.width), number)
    rows = config.prefix_length + config.max_text
    room = ((1, config.kv_heads, rows, config.head_dim), number)
    cache = {f"{n}_{b}": room for b in range(config.decoder_blocks) for n in ("key", "value")}
    one = ((1,), np.int32)
    found = {
        "encode_image": Signature(lambda pixels: {"prefix": call("encode_image", pixels)}, pixels),
        "embed_image": Signature(lambda pixels: {"embedding": call("embed_image", pixels)}, pixels),
        "read_lines": Signature(lambda lines: {"logits": call("read_lines", lines)}, lines),
        "decode_step": Signature(decode_step, {"ids": one, "position": one, **cache}),
    }
    for length in lengths(config):
        ids = ((1, length), np.int32)
        found[f"embed_text_{length}"] = Signature(
            lambda ids: {"embedding": call("embed_text", ids)}, {"ids": ids}
        )
        found[f"prefill_{length}"] = Signature(prefill, {"prefix": prefix, "ids": ids})
    return found


def convert(found: Mapping[str, Signature]) -> bytes:
    """Signatures -> a float32 file.

    Raises:
      ModuleNotFoundError: TensorFlow is missing; the message says what to install.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow as tf
        from jax.experimental import jax2tf
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the LiteRT export needs {error.name}: pip install 'mmllm[export]'", name=error.name
        ) from error

    module, concrete = tf.Module(), {}
    for name, signature in found.items():
        function = tf.function(
            jax2tf.convert(signature.function, with_gradient=False),
            autograph=False,
            jit_compile=True,
        )
        specs = {
            key: tf.TensorSpec(shape, kind, name=key)
            for key, (shape, kind) in signature.inputs.items()
        }
        concrete[name] = function.get_concrete_function(**specs)
        setattr(module, name, function)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=concrete)
        lite: Any = tf.lite  # its names come late
        converter = lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(concrete))
        converter.target_spec.supported_ops = [lite.OpsSet.TFLITE_BUILTINS]
        return converter.convert()


def _digest(weight: np.ndarray, kind: type = np.float32) -> str:
    return hashlib.sha256(np.ascontiguousarray(weight, kind).tobytes()).hexdigest()


def folds(config: ModelConfig, params: Params) -> dict[str, np.ndarray]:
    """What the converter multiplies into a weight because the model does so next to it."""
    found = {"embedding_token/kernel": np.full(config.width, config.embed_dim**0.5, np.float32)}
    if config.backbone == "efficientnet_lite0":
        last = efficientnet_lite0.block_names(config.level)[-1]
        found[f"backbone/{last}/project/kernel"] = np.asarray(params["feature_affine"]["scale"])
    return found


def _expected(
    coded: Mapping[str, Coded], folded: Mapping[str, np.ndarray]
) -> dict[str, tuple[str, np.ndarray]]:
    """Digest of a float weight as the converter writes it -> its path, and its scales there."""
    found = {}
    for path, each in coded.items():
        grid = grid_lib.GRIDS[each.grid]
        if grid.offset:
            raise ValueError(f"{path} lies on grid {each.grid}, which LiteRT cannot express")
        factor = folded.get(path, np.float32(1))
        value = grid_lib.dequantize(each.codes.T, each.scale, grid) * factor
        found[_digest(value.T)] = path, each.scale * factor
    return found


def put_codes(file: bytes, coded: Mapping[str, Coded], folded: Mapping[str, np.ndarray]) -> bytes:
    """Replaces the float copy of each coded weight by its packed codes and scales.

    The weights get their paths as names, and the others none; what stays float keeps float16.

    Args:
      file: of `convert`, whose weights are the coded ones as floats.
      coded: the weights of the bundle, by path.
      folded: of `folds`; such a weight keeps its codes, and its scales take the factors.

    Raises:
      ValueError: a coded weight that the file lacks, one that another operation reads too, or a
        grid that the file format cannot express.
    """
    model = flatbuffer.read(file)
    flatbuffer.forget(model)
    expected = _expected(coded, folded)
    weights: dict[int, tuple[str, np.ndarray]] = {}
    for index, buffer in enumerate(model.buffers):
        if buffer.data is not None and len(buffer.data):
            digest = hashlib.sha256(np.asarray(buffer.data, np.uint8).tobytes()).hexdigest()
            if digest in expected:
                weights[index] = expected[digest]
    missing = sorted(set(coded) - {path for path, _ in weights.values()})
    if missing:
        raise ValueError(f"the converted file lacks the weights {', '.join(missing[:5])}")
    for reading in flatbuffer.readings(model):
        path = weights.get(reading.tensor.buffer, ("", None))[0]
        if not path:
            continue
        if reading.kind not in VERSIONS or reading.place != 1:
            raise ValueError(f"{reading.kind} reads {path} as a float; it cannot be packed")
        reading.code.version = max(reading.code.version, VERSIONS[reading.kind])
        if reading.kind == "FULLY_CONNECTED":
            reading.operator.builtinOptions.asymmetricQuantizeInputs = True
    for buffer, (path, scale) in weights.items():
        bits = grid_lib.GRIDS[coded[path].grid].bits
        packed = packing.pack(coded[path].codes, bits).reshape(-1)
        flatbuffer.quantize(model, buffer, path, packed, bits, scale)
    if coded:
        flatbuffer.halve(model, HALVED)
    return flatbuffer.write(model)


def check(
    file: bytes,
    coded: Mapping[str, Coded],
    params: Params,
    folded: Mapping[str, np.ndarray],
) -> None:
    """Looks up in the bundle what each product, convolution and lookup of a finished file reads.

    In every signature that reads it; biases, norms and positions are not looked at.

    Args:
      file: of `put_codes`.
      coded: the weights of the bundle, by path.
      params: floats of the bundle.
      folded: as in `put_codes`.

    Raises:
      ValueError: codes, scales or a type that differ from the bundle's, a weight that is none of
        the bundle's, among them one that stayed float although the bundle has it as codes, one that
        is no constant, or one of the bundle's that the file lacks.
    """
    model, found = flatbuffer.read(file), set()
    kernels = {
        path: np.asarray(value) * folded.get(path, np.float32(1))
        for path, value in tensors.flatten(params)
        if path not in coded and coded_lib.is_weight(path)
    }
    plain = {
        (kind, _digest(_as_stored(path, value), kind)): path
        for path, value in kernels.items()
        for kind in (np.float32, np.float16)
    }
    for reading in flatbuffer.weights(model, (*VERSIONS, *HALVED)):
        data = model.buffers[reading.tensor.buffer].data
        if data is None or not len(data):
            raise ValueError(f"a {reading.kind} of the LiteRT file reads no constant as its weight")
        data = np.asarray(data, np.uint8)
        kind, path = flatbuffer.type_name(reading.tensor), (reading.tensor.name or b"").decode()
        if path in coded:
            _check_codes(path, coded[path], folded.get(path), reading.tensor, data)
        else:
            stored = getattr(np, kind.lower(), None), hashlib.sha256(data.tobytes()).hexdigest()
            if stored not in plain:
                shape = reading.tensor.shape.tolist()
                raise ValueError(
                    f"a {kind} weight of shape {shape} of the LiteRT file is none of the bundle's"
                )
            path = plain[stored]
        found.add(path)
    if missing := sorted({*coded, *kernels} - found):
        raise ValueError(f"the LiteRT file lacks the weights {', '.join(missing[:5])}")


def _check_codes(
    path: str, want: Coded, folded: np.ndarray | None, tensor: Any, data: np.ndarray
) -> None:
    kind, bits = flatbuffer.type_name(tensor), grid_lib.GRIDS[want.grid].bits
    if kind != f"INT{bits}":
        raise ValueError(f"{path} must be INT{bits} in the LiteRT file, got {kind}")
    codes = packing.unpack(data.reshape(len(want.codes), -1), bits)
    if not np.array_equal(codes, want.codes):
        raise ValueError(f"the codes of {path} differ between the bundle and the LiteRT file")
    scale = want.scale if folded is None else want.scale * folded
    got = np.asarray(tensor.quantization.scale, np.float32)
    if not np.array_equal(got, scale.astype(np.float32)):
        raise ValueError(f"the scales of {path} differ between the bundle and the LiteRT file")


def _as_stored(path: str, value: np.ndarray) -> np.ndarray:
    """A float weight in the layout of the file: output channels first, but of depthwise layers."""
    if coded_lib.is_table(path) or value.ndim == 3:
        return value
    return np.moveaxis(value, -1, 0)


def export(folder: Path, config: ModelConfig, params: Params, coded: Mapping[str, Coded]) -> Path:
    """Writes a bundle's LiteRT file, whole or not at all.

    Args:
      folder: of the bundle.
      config: of the model.
      params: floats, the coded weights as what they stand for.
      coded: weights that are packed, by path.

    Returns:
      The file.

    Raises:
      ModuleNotFoundError: TensorFlow or LiteRT is missing.
      ValueError: see `put_codes`.
    """
    held = jax.tree.map(jnp.asarray, params)
    for path, each in coded.items():
        if grid_lib.GRIDS[each.grid].offset:  # before the conversion, which takes long
            raise ValueError(f"{path} lies on grid {each.grid}, which LiteRT cannot express")
    folded = folds(config, params)
    file = put_codes(convert(signatures(config, held)), coded, folded)
    check(file, coded, params, folded)
    path = folder / bundle.LITERT
    with paths.written_whole(path) as partial:
        partial.write_bytes(file)
    return path
