"""Run a graph module node by node under a recorder: each node knows the module it was traced in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from compress.graph.trace import Recorder


class Nodes(fx.Interpreter):
    """Runs a graph module node by node, and remembers which values a node made."""

    def __init__(self, module: fx.GraphModule, recorder: Recorder, *, meta: bool) -> None:
        """`recorder` is the mode that is active while the nodes run."""
        super().__init__(module, garbage_collect_values=False)
        self.recorder = recorder
        self.meta = meta
        self.placed: dict[int, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node, with the module it was traced in as the path."""
        stack = n.meta.get("nn_module_stack")
        self.recorder.path.append(
            str(next(reversed(stack.values()))[0]).removeprefix("L['self'].") if stack else n.name
        )
        result = super().run_node(n)
        self.recorder.path.pop()
        self.recorder.trace.nodes[n.name] = pytree.tree_map_only(Tensor, self.recorder.number, result)
        return result

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the operator; tensors it makes on a device it names are made on meta."""
        if self.meta:
            args, kwargs = pytree.tree_map_only(torch.device, lambda _: torch.device("meta"), (args, kwargs))
        return super().call_function(target, args, kwargs)

    def fetch_attr(self, target: str) -> Any:
        """Return the attribute; constants that are not parameters follow to meta."""
        found = super().fetch_attr(target)
        if not self.meta or not isinstance(found, Tensor) or found.is_meta:
            return found
        if id(found) not in self.placed:
            self.placed[id(found)] = placed = found.to("meta")
            if id(found) in self.recorder.names:
                self.recorder.names[id(placed)] = self.recorder.names[id(found)]
        return self.placed[id(found)]
