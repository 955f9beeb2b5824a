"""What an ONNX graph computes in float64, in onnx's own reference implementation: a mistake, or rounding?

Where a network amplifies rounding errors, two correct programs in float32 differ by more than the parity check allows.
Then the graph of the file is computed in float64, where rounding is no excuse, and so is the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

_SINGLE, _DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
# Attributes that name an element type.
_TYPES = ("to", "dtype")


def in_double(model: Any, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Outputs of an onnx ModelProto whose every float32 number is taken for a float64 one, on inputs widened alike.

    Raises whatever the reference implementation raises: it does not know every operator.
    """
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    _widen_graph(wide.graph)
    for function in wide.functions:
        _widen_nodes(function.node)
    arrays = [(x.double() if x.dtype == torch.float32 else x).detach().cpu().numpy() for x in inputs]
    names = [entry.name for entry in wide.graph.input]
    given = ReferenceEvaluator(wide).run(None, dict(zip(names, arrays, strict=True)))
    return tuple(torch.from_numpy(np.array(y)) for y in given)


def _widen_graph(graph: Any) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == _SINGLE:
            value.type.tensor_type.elem_type = _DOUBLE
    _widen_nodes(graph.node)


def _widen_nodes(nodes: Any) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in _TYPES and attribute.i == _SINGLE:
                attribute.i = _DOUBLE
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)
            if attribute.HasField("g"):
                _widen_graph(attribute.g)
        _widen_constant(node)


def _widen_constant(node: Any) -> None:
    """A constant given as plain numbers, which an attribute can hold in float32 only, becomes a tensor."""
    if node.op_type == "Constant" and node.attribute[0].name in ("value_float", "value_floats"):
        given = node.attribute[0]
        numbers = np.array(given.f if given.name == "value_float" else list(given.floats), dtype=np.float64)
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(numbers)))
    elif node.op_type == "ConstantOfShape" and not node.attribute:
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1))))


def _widen_tensor(tensor: Any) -> None:
    if tensor.data_type == _SINGLE:
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), name))
