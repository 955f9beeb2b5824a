"""Costs of an ONNX file, node by node, from inferred shapes and a small table of operators that multiply."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from compress.core.errors import CheckpointError, UsageError, first_line
from compress.core.registry import Registry
from compress.measure.layers import LayerCost, NetworkCost

Shape = tuple[int, ...]
Count = Callable[[Any, list[Shape], Shape], int]
MACS: Registry[Count] = Registry("ONNX operator")

# Nodes that rename memory or know their result before any input comes.
FREE = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Constant", "Shape", "Dropout", "Cast"})


@dataclass(frozen=True, slots=True)
class _Value:
    shape: Shape
    bytes: int


@MACS.register("Conv", "FusedConv", "ConvInteger")
def _conv(node: Any, inputs: list[Shape], out: Shape) -> int:
    """Every output element meets one kernel's worth of weights: (N, O, *) x (O, I/g, *)."""
    del node
    return math.prod(out) * math.prod(inputs[1][1:])


@MACS.register("QLinearConv")
def _quantized_conv(node: Any, inputs: list[Shape], out: Shape) -> int:
    """As Conv; the weight is the fourth input."""
    del node
    return math.prod(out) * math.prod(inputs[3][1:])


@MACS.register("ConvTranspose")
def _transposed(node: Any, inputs: list[Shape], out: Shape) -> int:
    """Every input element meets one kernel's worth of weights: (N, I, *) x (I, O/g, *)."""
    del node, out
    return math.prod(inputs[0]) * math.prod(inputs[1][1:])


@MACS.register("Gemm", "FusedGemm")
def _gemm(node: Any, inputs: list[Shape], out: Shape) -> int:
    """(M, N) elements, each a sum over the inner dimension of the first factor."""
    flipped = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(out) * inputs[0][0 if flipped else -1]


@MACS.register("MatMul", "FusedMatMul", "MatMulInteger")
def _matmul(node: Any, inputs: list[Shape], out: Shape) -> int:
    """Each element is a sum over the first factor's last dimension."""
    del node
    return math.prod(out) * inputs[0][-1]


@MACS.register("QLinearMatMul")
def _quantized_matmul(node: Any, inputs: list[Shape], out: Shape) -> int:
    """As MatMul."""
    return _matmul(node, inputs, out)


@MACS.register("Einsum")
def _einsum(node: Any, inputs: list[Shape], out: Shape) -> int:
    """The product of the extents of all letters."""
    del out
    equation = next(a.s.decode() for a in node.attribute if a.name == "equation").replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    if len(terms) < 2 or "." in equation:
        return 0
    extents = {letter: size for term, shape in zip(terms, inputs, strict=False) for letter, size in zip(term, shape)}  # noqa: B905
    return math.prod(extents.values())


@MACS.register("Attention")
def _attention(node: Any, inputs: list[Shape], out: Shape) -> int:
    """Queries (N, H, L, d), keys (N, H, S, d), values (N, H, S, e): L S (d + e) for each head."""
    del node, out
    query, key, value = inputs[:3]
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1]) if len(query) == 4 else 0


def onnx_layers(path: Path, shape: Shape | None = None) -> NetworkCost:
    """Return what every node of the file costs for one input.

    A free batch counts as 1. `shape` is that of the first input, batch first, for files that leave other dimensions
    free. Raises CheckpointError where the file is no ONNX model, UsageError where a dimension stays free.
    """
    proto = _loaded(path)
    _fix_inputs(proto, shape, path)
    values = _values(proto)
    batch = _batch(proto, values)
    layers, unknown = [], []
    for node in proto.graph.node:
        if node.op_type in FREE:
            continue
        if any(name and name not in values for name in (*node.input, node.output[0])):
            unknown.append(f"{node.op_type} {node.name}")
            continue
        layers.append(_layer(node, values, {i.name: i for i in proto.graph.initializer}, batch))
    notes = (
        (f"{len(unknown)} nodes have shapes that could not be inferred, and are left out: {', '.join(unknown[:3])}",)
        if unknown
        else ()
    )
    return NetworkCost(name=path.name, layers=tuple(layers), notes=notes)


def _loaded(path: Path) -> Any:
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise CheckpointError(f"{path} is not an ONNX file: {first_line(error)}") from error


def _fix_inputs(proto: Any, shape: Shape | None, path: Path) -> None:
    weights = {i.name for i in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    for number, value in enumerate(inputs):
        dims = value.type.tensor_type.shape.dim
        for at, dim in enumerate(dims):
            if dim.HasField("dim_value") and dim.dim_value > 0:
                continue
            given = shape[at] if shape is not None and number == 0 and at < len(shape) else None
            if given is None and at > 0:
                raise UsageError(
                    f"dimension {at} of input {value.name!r} of {path} is free",
                    fix="give its shape with --input-shape N,C,H,W",
                )
            dim.dim_value = given or 1
    # What was inferred for the free size is inferred again for this one.
    del proto.graph.value_info[:]


def _values(proto: Any) -> Mapping[str, _Value]:
    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    found: dict[str, _Value] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            found[value.name] = _Value(tuple(d.dim_value for d in tensor.shape.dim), _size(tensor.elem_type))
    # The declared output may still name the batch; what is inferred inside the graph is the node's own.
    for weight in proto.graph.initializer:
        found[weight.name] = _Value(tuple(weight.dims), _size(weight.data_type))
    return found


def _size(kind: int) -> int:
    """Bytes of an element, 4 where the type is not known."""
    return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize) if kind else 4


def _batch(proto: Any, values: Mapping[str, _Value]) -> int:
    weights = {i.name for i in proto.graph.initializer}
    first = next((values[v.name].shape for v in proto.graph.input if v.name not in weights), ())
    return max(first[0], 1) if first else 1


def _layer(node: Any, values: Mapping[str, _Value], weights: Mapping[str, Any], batch: int) -> LayerCost:
    read = [values[name] for name in node.input if name]
    made = values[node.output[0]]
    shapes = [value.shape for value in read]
    own = [values[name] for name in node.input if name in weights]
    own_bytes = sum(v.bytes * math.prod(v.shape) for v in own)
    moved = sum(v.bytes * math.prod(v.shape) for v in (*read, made)) - own_bytes
    count = MACS.get(node.op_type)
    multiplied = [v.shape for v in own if len(v.shape) > 1]
    return LayerCost(
        name=node.name or node.output[0],
        operator=node.op_type,
        macs=count(node, shapes, made.shape) // batch if count is not None else 0,
        parameters=sum(math.prod(v.shape) for v in own if v.bytes <= 4),
        activations=math.prod(made.shape) // batch,
        traffic=own_bytes + moved // batch,
        weight_bytes=own_bytes,
        shape=made.shape,
        weight=max(multiplied, key=math.prod, default=()) if count is not None else (),
        output=node.output[0],
        inputs=tuple(name for name in node.input if name and name not in weights),
    )
