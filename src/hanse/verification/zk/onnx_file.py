"""Writes a classifier of two layers as an ONNX file: the form in which ezkl takes models.

    encode_onnx(layers)     y = W2 relu(W1 x + b1) + b2, opset 13, one row at a time

ONNX is protobuf, and of protobuf's wire format this takes integers and length-prefixed bytes only,
so that no package is needed for it. onnxruntime reads the result in the tests.

Source: onnx.proto3 (ONNX IR version 8): ModelProto, GraphProto, NodeProto, TensorProto,
ValueInfoProto; the field numbers below are theirs.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

IR_VERSION = 8
OPSET = 13
FLOAT = 1
"""TensorProto.DataType of 32-bit floats."""

Matrix = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Layers:
    """Weights of a classifier of two layers: W1[inputs][hidden], b1, W2[hidden][outputs], b2."""

    w1: Matrix
    b1: Sequence[float]
    w2: Matrix
    b2: Sequence[float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Inputs, hidden units, outputs."""
        return len(self.w1), len(self.b1), len(self.b2)


def encode_onnx(layers: Layers) -> bytes:
    """The file; the same layers give the same bytes."""
    inputs, hidden, outputs = layers.shape
    nodes = (
        _node("Gemm", ("x", "w1", "b1"), "h"),
        _node("Relu", ("h",), "r"),
        _node("Gemm", ("r", "w2", "b2"), "y"),
    )
    tensors = (
        _tensor("w1", (inputs, hidden), [value for row in layers.w1 for value in row]),
        _tensor("b1", (hidden,), layers.b1),
        _tensor("w2", (hidden, outputs), [value for row in layers.w2 for value in row]),
        _tensor("b2", (outputs,), layers.b2),
    )
    graph = (
        b"".join(_bytes(1, node) for node in nodes)
        + _text(2, "classifier")
        + b"".join(_bytes(5, tensor) for tensor in tensors)
        + _bytes(11, _value("x", (1, inputs)))
        + _bytes(12, _value("y", (1, outputs)))
    )
    opset = _text(1, "") + _integer(2, OPSET)
    return _integer(1, IR_VERSION) + _text(2, "hanse") + _bytes(7, graph) + _bytes(8, opset)


def _node(operator: str, inputs: Sequence[str], output: str) -> bytes:
    named = b"".join(_text(1, name) for name in inputs) + _text(2, output)
    return named + _text(3, output) + _text(4, operator)


def _tensor(name: str, shape: Sequence[int], values: Sequence[float]) -> bytes:
    dims = b"".join(_integer(1, size) for size in shape)
    raw = struct.pack(f"<{len(values)}f", *values)
    return dims + _integer(2, FLOAT) + _text(8, name) + _bytes(9, raw)


def _value(name: str, shape: Sequence[int]) -> bytes:
    dims = b"".join(_bytes(1, _integer(1, size)) for size in shape)
    tensor_type = _integer(1, FLOAT) + _bytes(2, dims)
    return _text(1, name) + _bytes(2, _bytes(1, tensor_type))


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
