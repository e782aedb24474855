"""An ONNX file without its second pass: the output `masked_probs` and all that only it needs are left out.

ONNX Runtime computes all nodes of a graph, whichever outputs are asked for (`only_execute_path_to_fetches` does nothing
outside its builds for training). So the file is cut before it is loaded. The nodes that stay are the bytes that stood
there, in their order, and so are the weights.

    ModelProto   field 7 graph
    GraphProto   field 1 node (repeated), 12 output (repeated)
    NodeProto    field 1 input, 2 output (names)
    ValueInfo    field 1 name

Source: onnx.proto, and the encoding of protocol buffers (a tag, number << 3 | type, before each field). Written here
because the package onnx is no part of a run. Not handled: nodes with graphs inside, which an exported file never has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from wyr_batch.errors import ModelError

_GRAPH, _NODE, _OUTPUT = 7, 1, 12
_NODE_INPUT, _NODE_OUTPUT, _NAME = 1, 2, 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}

Field = tuple[int, memoryview, memoryview]  # number, content, and the field as it stands with its tag


def cut_model(path: Path, outputs: Collection[str]) -> bytes:
    """Return the file's model with these outputs alone, and the nodes that they need.

    Raises: ModelError if the file is no ONNX model, or has no such outputs.
    """
    try:
        model = list(_fields(memoryview(path.read_bytes())))
        graph = [field for number, content, _ in model if number == _GRAPH for field in _fields(content)]
    except (IndexError, ValueError) as error:
        raise ModelError(path, f"'{error}'", "an ONNX model", "Copy the bundle again, or export it again.") from None
    values = [whole for number, content, whole in graph if number == _OUTPUT and _named(content) in outputs]
    if len(values) != len(outputs):
        raise ModelError(path, f"{len(values)} of the outputs {', '.join(outputs)}", "all", "Export the bundle again.")
    nodes = _needed([(content, whole) for number, content, whole in graph if number == _NODE], outputs)
    others = [whole for number, _, whole in graph if number not in (_NODE, _OUTPUT)]
    parts = [*nodes, *values, *others]
    length = sum(map(len, parts))
    head = [_varint(_GRAPH << 3 | _BYTES), _varint(length)]
    return b"".join([*(whole for number, _, whole in model if number != _GRAPH), *head, *parts])


def _needed(nodes: list[tuple[memoryview, memoryview]], outputs: Collection[str]) -> list[memoryview]:
    """Return those of (content, whole) nodes, which are in topological order, that the outputs come from."""
    needed, kept = set(outputs), []
    for content, whole in reversed(nodes):
        names: dict[int, set[str]] = {_NODE_INPUT: set(), _NODE_OUTPUT: set()}
        for number, value, _ in _fields(content):
            if number in names:
                names[number].add(bytes(value).decode())
        if needed & names[_NODE_OUTPUT]:
            needed |= names[_NODE_INPUT]
            kept.append(whole)
    return kept[::-1]


def _named(content: memoryview) -> str:
    return next((bytes(value).decode() for number, value, _ in _fields(content) if number == _NAME), "")


def _fields(message: memoryview) -> Iterator[Field]:
    """Yield the fields of a message. Raises: IndexError, ValueError for what is none."""
    at = 0
    while at < len(message):
        start = at
        tag, at = _read_varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            first = at
            _, at = _read_varint(message, at)
        elif kind == _BYTES:
            length, first = _read_varint(message, at)
            at = first + length
        elif kind in _FIXED_BYTES:
            first, at = at, at + _FIXED_BYTES[kind]
        else:
            raise ValueError(f"a field of type {kind}")
        if at > len(message):
            raise ValueError("a field cut short")
        yield number, message[first:at], message[start:at]


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
