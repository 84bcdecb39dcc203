"""Reads and edits LiteRT files as the objects of their official schema.

Only what the export needs: who reads which tensor, quantized and half-precision constants, names.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

IDENTIFIER = b"TFL3"


class Reading(NamedTuple):
    """One input of one operation.

    Attributes:
      kind: name of the operation, e.g. "FULLY_CONNECTED".
      place: which input it is.
      tensor: what it reads.
      operator: the operation.
      code: its entry among the operator codes, with its version.
      graph: where it stands.
    """

    kind: str
    place: int
    tensor: Any
    operator: Any
    code: Any
    graph: Any


def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"LiteRT files need {error.name}: pip install 'mmllm[export]'", name=error.name
        ) from error
    return schema_py_generated


def read(file: bytes) -> Any:
    """A file as mutable objects."""
    schema = _schema()
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(file, 0))


def write(model: Any) -> bytes:
    """The file of a model; equal models give equal bytes.

    Tensors that share their scales share them in the file too, and so do equal zero points: the
    schema's own packing would repeat them for every graph.
    """
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    zeros: dict[int, int] = {}
    places: dict[int, int] = {}
    for quantization in _quantizations(model):
        if id(quantization) in places:
            continue  # the copy of another signature
        count = len(quantization.scale)
        if count not in zeros:
            zeros[count] = builder.CreateNumpyVector(np.zeros(count, np.int64))
        places[id(quantization)] = _packed(builder, quantization.scale, zeros[count])
    for quantization in _quantizations(model):
        place = places[id(quantization)]
        # An attribute of the object hides the schema's method: a place instead of a copy.
        quantization.Pack = lambda _, place=place: place
    try:
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    finally:
        for quantization in _quantizations(model):
            vars(quantization).pop("Pack", None)
    return bytes(builder.Output())


def _quantizations(model: Any) -> Iterator[Any]:
    """The scales of all quantized tensors; zero points are 0, which the runtimes demand."""
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.quantization is not None and tensor.quantization.scale is not None:
                yield tensor.quantization


def _packed(builder: Any, scale: Float[np.ndarray, "o"], zero_point: int) -> int:
    schema = _schema()
    place = builder.CreateNumpyVector(np.asarray(scale, np.float32))
    schema.QuantizationParametersStart(builder)
    schema.QuantizationParametersAddScale(builder, place)
    schema.QuantizationParametersAddZeroPoint(builder, zero_point)
    return schema.QuantizationParametersEnd(builder)


def _names(enumeration: type) -> dict[int, str]:
    return {v: name for name, v in vars(enumeration).items() if not name.startswith("_")}


def type_name(tensor: Any) -> str:
    """A tensor's type as the schema calls it, e.g. "INT2"."""
    return _names(_schema().TensorType)[tensor.type]


def kind_of(code: Any) -> str:
    """An operator code's name; codes below 127 stand in a second field too."""
    return _names(_schema().BuiltinOperator)[max(code.builtinCode, code.deprecatedBuiltinCode)]


def readings(model: Any) -> Iterator[Reading]:
    """Every input of every operation."""
    kinds = [kind_of(code) for code in model.operatorCodes]
    for graph in model.subgraphs:
        for operator in graph.operators:
            for place, index in enumerate(operator.inputs):
                if index >= 0:
                    yield Reading(
                        kinds[operator.opcodeIndex],
                        place,
                        graph.tensors[index],
                        operator,
                        model.operatorCodes[operator.opcodeIndex],
                        graph,
                    )


def weights(model: Any, kinds: Sequence[str]) -> Iterator[Reading]:
    """The second inputs of operations of some kinds.

    One that a DEQUANTIZE widens as the file is loaded is given as the file stores it.
    """
    # `halve` put the DEQUANTIZE there; its input, not its output, is what the file stores.
    stored = {
        (id(reading.graph), int(reading.operator.outputs[0])): reading.tensor
        for reading in readings(model)
        if reading.kind == "DEQUANTIZE"
    }
    for reading in readings(model):
        if reading.place != 1 or reading.kind not in kinds:
            continue
        place = id(reading.graph), int(reading.operator.inputs[1])
        yield reading._replace(tensor=stored.get(place, reading.tensor))


def forget(model: Any) -> None:
    """Drops what nothing reads: names of all tensors but inputs and outputs, and empty buffers.

    Tensors without a constant share the first buffer, which is empty in every file.
    """
    for graph in model.subgraphs:
        # The names by which signatures are called.
        named = {int(index) for index in (*graph.inputs, *graph.outputs)}
        for index, tensor in enumerate(graph.tensors):
            if index not in named:
                tensor.name = None
    places, buffers = {0: 0}, model.buffers[:1]
    for index, buffer in enumerate(model.buffers[1:], 1):
        if buffer.data is not None and len(buffer.data):
            places[index] = len(buffers)
            buffers.append(buffer)
    for holder in (*(t for g in model.subgraphs for t in g.tensors), *(model.metadata or ())):
        holder.buffer = places.get(holder.buffer, 0)
    model.buffers = buffers


def quantize(
    model: Any,
    buffer: int,
    name: str,
    packed: UInt8[np.ndarray, "p"],
    bits: int,
    scale: Float[np.ndarray, "o"],
) -> None:
    """Puts packed codes in the place of a float constant, output channels first.

    Args:
      model: changed in place.
      buffer: index of the constant's bytes.
      name: for its tensors.
      packed: codes, see `quant.packing`.
      bits: of a code: 2, 4 or 8.
      scale: one an output channel.
    """
    schema = _schema()
    quantization = schema.QuantizationParametersT()
    quantization.scale = scale.astype(np.float32)
    quantization.zeroPoint = np.zeros(len(scale), np.int64)
    kind = {2: schema.TensorType.INT2, 4: schema.TensorType.INT4, 8: schema.TensorType.INT8}[bits]
    # Every signature has a tensor of its own on the one buffer: one left as it is would read the
    # codes as floats.
    model.buffers[buffer].data = packed
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.buffer == buffer:
                tensor.type, tensor.name, tensor.quantization = kind, name.encode(), quantization


def halve(model: Any, kinds: Sequence[str]) -> None:
    """Stores the float32 weights of some operations as float16, widened as the file is loaded.

    Args:
      model: changed in place.
      kinds: operations whose second input is meant.
    """
    schema = _schema()
    # A constant that another operation reads as well must stay as it is.
    shared = {r.tensor.buffer for r in readings(model) if r.kind not in kinds or r.place != 1}
    code = _code(model, schema.BuiltinOperator.DEQUANTIZE)
    widened: dict[tuple[int, int], int] = {}
    for graph_number, graph in enumerate(model.subgraphs):
        added = []
        for operator in graph.operators:
            if kind_of(model.operatorCodes[operator.opcodeIndex]) not in kinds:
                continue
            index = int(operator.inputs[1])
            weight = graph.tensors[index]
            if weight.type != schema.TensorType.FLOAT32 or weight.buffer in shared:
                continue
            key = graph_number, index
            if key not in widened:
                half = graph.tensors[index]
                _round_buffer(model.buffers[half.buffer], half, schema)
                wide = schema.TensorT()
                wide.shape, wide.type, wide.name = half.shape, schema.TensorType.FLOAT32, b""
                graph.tensors.append(wide)
                widened[key] = len(graph.tensors) - 1
                cast = schema.OperatorT()
                cast.opcodeIndex = code
                cast.inputs = np.array([index], np.int32)
                cast.outputs = np.array([widened[key]], np.int32)
                added.append(cast)
            # The schema's array is a view of the file's bytes, which cannot be written to.
            operator.inputs = np.array(operator.inputs, np.int32)
            operator.inputs[1] = widened[key]
        # An operation may read only what stands before it.
        graph.operators = [*added, *graph.operators]


def _round_buffer(buffer: Any, tensor: Any, schema: Any) -> None:
    """Halves a constant, once if several graphs share it."""
    count = int(np.prod(tensor.shape))
    data = np.asarray(buffer.data, np.uint8)
    if len(data) == 4 * count:
        buffer.data = data.view(np.float32).astype(np.float16).view(np.uint8)
    tensor.type = schema.TensorType.FLOAT16


def _code(model: Any, builtin: int) -> int:
    """Index of an operator code, added where the file lacks it."""
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
            return index
    code = _schema().OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
