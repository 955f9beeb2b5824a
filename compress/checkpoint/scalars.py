"""Turn sizes that a traced graph carries in 0-dimensional tensors back into numbers.

`torch.jit.trace` writes `x.size(1) // 2` as: make a tensor of the size, divide it by a tensor, read the number out
again. Reading a tensor's value stops every tracer that has no values, so such chains become arithmetic on numbers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

_aten = torch.ops.aten

_ARITHMETIC: dict[Any, Callable[..., Any]] = {
    _aten.floor_divide: operator.floordiv,
    _aten.mul: operator.mul,
    _aten.add: operator.add,
    _aten.sub: operator.sub,
    _aten.remainder: operator.mod,
}
_SAME = (_aten._to_copy, _aten.to, _aten._local_scalar_dense, _aten.item, _aten.clone, _aten.detach, _aten.Int)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def scalars_to_numbers(module: fx.GraphModule) -> fx.GraphModule:
    """Replace, in place, integer scalar tensors computed from sizes by numbers; return `module`."""
    numbers: dict[fx.Node, Any] = {}
    for node in list(module.graph.nodes):
        value = _number(node, numbers, module)
        if value is not None:
            numbers[node] = value
    for node, value in numbers.items():
        if node.op == "call_function" and _packet(node) in (_aten._local_scalar_dense, _aten.item, _aten.Int):
            node.replace_all_uses_with(value)
    for node in reversed(list(module.graph.nodes)):
        if not node.users and (node in numbers or node.target in _ARITHMETIC.values()):
            module.graph.erase_node(node)
    module.recompile()
    return module


def _number(node: fx.Node, numbers: dict[fx.Node, Any], module: fx.GraphModule) -> Any:
    """Return the int, or the node giving an int, that the scalar tensor of `node` holds; None for other nodes."""
    if node.op == "get_attr":
        return _constant(module, str(node.target))
    if node.op != "call_function":
        return None
    packet = _packet(node)
    if packet is _aten.scalar_tensor:
        integral = node.kwargs.get("dtype") in _INTEGERS
        return node.args[0] if integral and isinstance(node.args[0], int | fx.Node) else None
    if packet in _SAME and node.kwargs.get("dtype", torch.int64) in _INTEGERS:
        return numbers.get(node.all_input_nodes[0]) if node.all_input_nodes else None
    # sizes are not negative, so rounding down and towards zero are one
    compute = operator.floordiv if node.kwargs.get("rounding_mode") in ("floor", "trunc") else _ARITHMETIC.get(packet)
    if compute is None or len(node.args) != 2 or node.kwargs.keys() - {"rounding_mode"}:
        return None
    values = [numbers.get(arg) if isinstance(arg, fx.Node) else arg for arg in node.args]
    if not any(arg in numbers for arg in node.args if isinstance(arg, fx.Node)):
        return None
    if not all(isinstance(value, int | fx.Node) for value in values):
        return None
    with module.graph.inserting_before(node):
        return module.graph.call_function(compute, tuple(values))


def _packet(node: fx.Node) -> Any:
    return getattr(node.target, "overloadpacket", node.target)


def _constant(module: fx.GraphModule, name: str) -> int | None:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part, None)
    if isinstance(value, torch.Tensor) and value.ndim == 0 and value.dtype in _INTEGERS and not value.requires_grad:
        return int(value) if not name.endswith("num_batches_tracked") else None
    return None
