"""Clean-ups of an ONNX graph that neither PyTorch's exporter nor onnxsim makes, each true for every network.

- equal initialisers become one, also those that tied weights or repeated constants left behind
- Identity, and subgraphs that are computed twice, leave, but every output keeps its name
- ReduceMean over all spatial dimensions becomes GlobalAveragePool: onnxruntime has it in its blocked layout and in int8
- a Transpose that moves only dimensions of length 1 leaves where a Reshape reads it
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common

_PASSES = (
    common.IdentityEliminationPass,
    common.DeduplicateHashedInitializersPass,
    common.CommonSubexpressionEliminationPass,
    common.RemoveUnusedNodesPass,
)


def tidy(proto: Any) -> Any:
    """Return `proto`, an onnx ModelProto with inferred shapes, as a new one with fewer, or better known, operators."""
    model = ir.from_proto(proto)
    for node in list(model.graph):
        _pool_for_mean(node)
        _reshape_without_transpose(node)
    names = [value.name for value in model.graph.outputs]
    for make in _PASSES:
        make()(model)
    _each_its_name(model.graph, names)
    return ir.to_proto(model)


def _each_its_name(graph: Any, names: list[str | None]) -> None:
    """Give an output that became one value with another its own name back, by which users ask for it."""
    for position, name in enumerate(names):
        value = graph.outputs[position]
        if value.name != name:
            copy = ir.node("Identity", inputs=[value], num_outputs=1)
            own = copy.outputs[0]
            own.name, own.shape, own.type = name, value.shape, value.type
            graph.append(copy)
            graph.outputs[position] = own


def _pool_for_mean(node: Any) -> None:
    """ReduceMean of (N, C, *spatial) over all of spatial, dimensions kept -> GlobalAveragePool."""
    if node.op_type != "ReduceMean" or node.domain or not node.inputs or node.inputs[0].shape is None:
        return
    rank, axes = len(node.inputs[0].shape), _axes(node)
    keeps = node.attributes.get("keepdims")
    if rank < 3 or axes is None or (keeps is not None and keeps.as_int() != 1):
        return
    if sorted(axis % rank for axis in axes) != list(range(2, rank)):
        return
    pool = ir.node("GlobalAveragePool", inputs=[node.inputs[0]], num_outputs=1, name=node.name)
    old, new = node.outputs[0], pool.outputs[0]
    new.shape, new.type, new.name = old.shape, old.type, old.name
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], [pool], [old], [new])


def _axes(node: Any) -> list[int] | None:
    """Axes of a reduction, from its attribute or its constant input; None where they are not known."""
    if "axes" in node.attributes:
        return list(node.attributes["axes"].as_ints())
    if len(node.inputs) < 2 or node.inputs[1] is None or node.inputs[1].const_value is None:
        return None
    return [int(axis) for axis in node.inputs[1].const_value.numpy().ravel()]


def _reshape_without_transpose(node: Any) -> None:
    """Let a Reshape read what its Transpose reads, where that does not change the order of the numbers."""
    if node.op_type != "Reshape" or node.domain:
        return
    before = node.inputs[0].producer() if node.inputs[0] is not None else None
    if before is None or before.op_type != "Transpose" or before.domain or before.inputs[0].shape is None:
        return
    shape, perm = list(before.inputs[0].shape), before.attributes.get("perm")
    order = list(perm.as_ints()) if perm is not None else list(range(len(shape)))[::-1]
    moved = [axis for axis in order if shape[axis] != 1]
    target = node.inputs[1].const_value
    # A zero copies a length from the input's own dimensions, which are in another order then.
    if moved == sorted(moved) and target is not None and (target.numpy() != 0).all():
        node.replace_input_with(0, before.inputs[0])
