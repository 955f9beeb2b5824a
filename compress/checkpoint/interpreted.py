"""Take out of a translated graph what only TorchScript's interpreter can run, or has a use for."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

_aten = torch.ops.aten


def without_interpreter(module: fx.GraphModule) -> fx.GraphModule:
    """Remove warnings, copy lists by Python, and return a lone tensor bare, all in place; return `module`.

    Scripted networks return every field of a named tuple; where all but one are None, the tensor is what counts.
    """
    for node in list(module.graph.nodes):
        packet = getattr(node.target, "overloadpacket", None)
        if packet is _aten.warn:
            module.graph.erase_node(node)
        elif packet is _aten.copy and "[]" in str(node.target._schema):
            node.target = list
        elif node.op == "output":
            node.args = (_lone(node.args[0]),)
    module.recompile()
    return module


def _lone(result: Any) -> Any:
    if not isinstance(result, list | tuple):
        return result
    present = [value for value in result if value is not None]
    return present[0] if len(present) == 1 else result
