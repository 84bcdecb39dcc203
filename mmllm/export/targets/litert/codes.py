"""The bundle's codes in a LiteRT file: put in the place of float copies, and looked up again.

Each weight that the bundle holds as codes takes the place of its float copy, so that what ships are
the codes that training ended with, never numbers quantized again. The file's FULLY_CONNECTED
operations read them with dynamic int8 activations.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmllm.common import tensors
from mmllm.common.config import ModelConfig
from mmllm.common.types import Params
from mmllm.export.targets.litert import flatbuffer
from mmllm.models import efficientnet_lite0
from mmllm.quant import coded as coded_lib
from mmllm.quant import grid as grid_lib
from mmllm.quant import packing
from mmllm.quant.coded import Coded

# What stays float ships at half precision. Depthwise layers do: at eight bits they cut the graph
# into 17 delegate partitions, which is slower than float (12.9 ms a picture against 8.0).
HALVED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
VERSIONS = {"FULLY_CONNECTED": 14, "EMBEDDING_LOOKUP": 5}
"""The first version of each operation that reads INT2. Source: LiteRT, op_version.cc."""


def _digest(weight: np.ndarray, kind: type = np.float32) -> str:
    return hashlib.sha256(np.ascontiguousarray(weight, kind).tobytes()).hexdigest()


def folds(config: ModelConfig, params: Params) -> dict[str, np.ndarray]:
    """What the converter multiplies into a weight because the model does so next to it.

    Returns:
      Weight path -> one factor an output channel.
    """
    found = {"embedding_token/kernel": np.full(config.width, config.embed_dim**0.5, np.float32)}
    # Behind a residual the affine of the features stays a multiplication of its own: the sum in
    # front of it is no product that could take the factor. Only a stage's first block has none.
    if (
        config.backbone == "efficientnet_lite0"
        and efficientnet_lite0.stages_of(config.level)[-1].blocks == 1
    ):
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
    flatbuffer.forget(model)  # first: it numbers the buffers anew
    # The converter names and orders constants as it likes: only their bytes tell which is which.
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
        # Older versions of an operation refuse INT2 when the file is loaded.
        reading.code.version = max(reading.code.version, VERSIONS[reading.kind])
        if reading.kind == "FULLY_CONNECTED":
            # Rows are rounded by their own range with a zero point, as JAX does in `fake_quant`.
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
    # In either type: `halve` leaves in float32 what another operation reads as well.
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
    path: str, target: Coded, folded: np.ndarray | None, tensor: Any, data: np.ndarray
) -> None:
    kind, bits = flatbuffer.type_name(tensor), grid_lib.GRIDS[target.grid].bits
    if kind != f"INT{bits}":
        raise ValueError(f"{path} must be INT{bits} in the LiteRT file, got {kind}")
    codes = packing.unpack(data.reshape(len(target.codes), -1), bits)
    if not np.array_equal(codes, target.codes):
        raise ValueError(f"the codes of {path} differ between the bundle and the LiteRT file")
    scale = target.scale if folded is None else target.scale * folded
    stored = np.asarray(tensor.quantization.scale, np.float32)
    if not np.array_equal(stored, scale.astype(np.float32)):
        raise ValueError(f"the scales of {path} differ between the bundle and the LiteRT file")


def _as_stored(path: str, value: np.ndarray) -> np.ndarray:
    """A float weight in the layout of the file: output channels first, but of depthwise layers."""
    if coded_lib.is_table(path) or value.ndim == 3:
        return value
    return np.moveaxis(value, -1, 0)
