"""Edits of LiteRT files, on a model of one operation made by hand."""

from typing import Any

import numpy as np
import pytest

from mmllm.export.targets.litert import flatbuffer

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
pytestmark = pytest.mark.export


def model_of(kind: str, weight: np.ndarray, graphs: int = 2) -> Any:
    """A model whose graphs each read one shared constant with one operation."""
    model = schema.ModelT()
    model.version = 3
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
    model.operatorCodes = [code]
    empty, constant = schema.BufferT(), schema.BufferT()
    constant.data = np.frombuffer(weight.astype(np.float32).tobytes(), np.uint8)
    model.buffers = [empty, constant]
    model.subgraphs = []
    for _ in range(graphs):
        graph = schema.SubGraphT()
        graph.tensors = []
        for name, buffer in ((b"x", 0), (b"long/weight/name", 1), (b"y", 0)):
            tensor = schema.TensorT()
            tensor.name, tensor.buffer, tensor.shape = name, buffer, np.int32(weight.shape)
            graph.tensors.append(tensor)
        operator = schema.OperatorT()
        operator.inputs, operator.outputs = np.int32([0, 1]), np.int32([2])
        graph.operators = [operator]
        graph.inputs, graph.outputs = np.int32([0]), np.int32([2])
        model.subgraphs.append(graph)
    return model


def test_a_model_comes_back_as_it_was_written_and_the_same_bytes_each_time():
    model = model_of("FULLY_CONNECTED", np.eye(4))
    file = flatbuffer.write(model)
    assert file == flatbuffer.write(model)
    again = flatbuffer.read(file)
    readings = [(r.kind, r.place, r.tensor.name) for r in flatbuffer.readings(again)]
    one = [("FULLY_CONNECTED", 0, b"x"), ("FULLY_CONNECTED", 1, b"long/weight/name")]
    assert readings == 2 * one


def test_a_constant_becomes_codes_with_scales_in_every_graph():
    model = model_of("FULLY_CONNECTED", np.eye(4))
    scale = np.float32([1.0, 0.5, 0.25, 2.0])
    packed = np.arange(4, dtype=np.uint8)
    flatbuffer.quantize(model, 1, "a/kernel", packed, 2, scale)
    again = flatbuffer.read(flatbuffer.write(model))
    for graph in again.subgraphs:
        tensor = graph.tensors[1]
        assert flatbuffer.type_name(tensor) == "INT2"
        assert tensor.name == b"a/kernel"
        np.testing.assert_array_equal(tensor.quantization.scale, scale)
        np.testing.assert_array_equal(tensor.quantization.zeroPoint, np.zeros(4))
    np.testing.assert_array_equal(again.buffers[1].data, packed)


def test_scales_stand_in_a_file_once_however_many_graphs_read_them():
    sizes = []
    for graphs in (1, 9):
        model = model_of("FULLY_CONNECTED", np.ones((512, 1)), graphs)
        flatbuffer.quantize(model, 1, "k", np.zeros(512, np.uint8), 8, np.ones(512, np.float32))
        sizes.append(len(flatbuffer.write(model)))
    assert sizes[1] - sizes[0] < 8 * 512  # far less than eight more vectors of float32 and int64


def test_the_weight_of_a_convolution_is_halved_and_widened_before_it_is_read():
    weight = np.float32([[1 / 3, -2.0]])
    model = model_of("DEPTHWISE_CONV_2D", weight)
    flatbuffer.halve(model, ("DEPTHWISE_CONV_2D",))
    again = flatbuffer.read(flatbuffer.write(model))
    half = np.asarray(again.buffers[1].data, np.uint8).view(np.float16)
    np.testing.assert_array_equal(half, weight[0].astype(np.float16))
    for graph in again.subgraphs:
        cast, operator = graph.operators
        assert flatbuffer.kind_of(again.operatorCodes[cast.opcodeIndex]) == "DEQUANTIZE"
        assert cast.inputs[0] == 1
        assert operator.inputs[1] == cast.outputs[0]
        assert flatbuffer.type_name(graph.tensors[1]) == "FLOAT16"
        assert flatbuffer.type_name(graph.tensors[int(operator.inputs[1])]) == "FLOAT32"


def test_names_of_inputs_and_outputs_stay_and_empty_buffers_are_one():
    model = model_of("FULLY_CONNECTED", np.eye(2))
    empty = len(model.buffers)
    model.buffers.append(flatbuffer.read(flatbuffer.write(model)).buffers[0])
    model.subgraphs[0].tensors[0].buffer = empty
    flatbuffer.forget(model)
    tensors = model.subgraphs[0].tensors
    assert [tensor.name for tensor in tensors] == [b"x", None, b"y"]
    assert len(model.buffers) == 2
    assert [tensor.buffer for tensor in tensors] == [0, 1, 0]
    weight = np.asarray(model.buffers[1].data, np.uint8).view(np.float32)
    np.testing.assert_array_equal(weight, np.eye(2).reshape(-1))


def test_only_float_constants_are_halved():
    model = model_of("FULLY_CONNECTED", np.eye(2))
    flatbuffer.quantize(model, 1, "w", np.zeros(4, np.uint8), 8, np.ones(2, np.float32))
    flatbuffer.halve(model, ("FULLY_CONNECTED",))
    assert len(model.subgraphs[0].operators) == 1
    assert flatbuffer.type_name(model.subgraphs[0].tensors[1]) == "INT8"


def test_a_constant_that_another_operation_reads_is_not_halved():
    model = model_of("FULLY_CONNECTED", np.eye(2))
    lookup = schema.OperatorCodeT()
    lookup.builtinCode = lookup.deprecatedBuiltinCode = schema.BuiltinOperator.EMBEDDING_LOOKUP
    model.operatorCodes.append(lookup)
    model.subgraphs[1].operators[0].opcodeIndex = 1
    flatbuffer.halve(model, ("FULLY_CONNECTED",))
    for graph in model.subgraphs:
        assert len(graph.operators) == 1
        assert flatbuffer.type_name(graph.tensors[1]) == "FLOAT32"
