"""Costs of a PyTorch network, operator by operator, from one recorded pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from compress.graph.costs import batch_of, macs_of
from compress.graph.couplings import operands
from compress.graph.modules import tensors_of
from compress.graph.trace import Op, Trace, trace
from compress.measure.layers import LayerCost, NetworkCost

# What a parameter or an activation takes in float32, which is how networks are loaded.
BYTES = 4


def torch_layers(module: nn.Module, example: tuple[Any, ...], name: str) -> NetworkCost:
    """Return what every operator of `module` costs for one input; operators that only look at memory are left out.

    `example` holds the positional inputs, batch first. Activations are counted as float32. Raises TraceError where
    the network does not run on the example.
    """
    recorded = trace(module, example)
    own = {id(t) for t in module.parameters()}
    fixed = {v: id(tensors_of(module)[n]) in own for n, v in recorded.parameters.items()}
    held = _Held(recorded, fixed)
    layers = tuple(_layer(op, held) for op in recorded.ops if held.computes(op))
    return NetworkCost(name=name, layers=layers)


class _Held:
    """Which values are the network's own tensors, also under another shape."""

    def __init__(self, recorded: Trace, fixed: Mapping[int, bool]) -> None:
        """`fixed` maps values that the network holds to whether they are parameters (else buffers)."""
        self.trace = recorded
        self.fixed = dict(fixed)
        for op in recorded.ops:
            read = operands(op)
            if _is_view(op.func) and len(read) == 1 and read[0] in self.fixed:
                self.fixed.update(dict.fromkeys(op.outs, self.fixed[read[0]]))

    def computes(self, op: Op) -> bool:
        """Whether the operator makes something new that holds numbers."""
        return not _is_view(op.func) and bool(op.outs) and math.prod(self.trace.shapes[op.outs[0]]) > 0

    def elements(self, values: Iterable[int]) -> int:
        """Elements of all the values."""
        return sum(math.prod(self.trace.shapes[v]) for v in values)


def _is_view(func: Any) -> bool:
    """Whether the operator returns its input's memory under another shape, so that nothing moves."""
    returned = [r.alias_info for r in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in returned)


def _layer(op: Op, held: _Held) -> LayerCost:
    recorded, batch = held.trace, batch_of(held.trace)
    read = {*operands(op)}
    own = {v for v in read if v in held.fixed}
    shape = recorded.shapes[op.outs[0]]  # further results are statistics that evaluation does not write
    macs = macs_of(op, recorded.shapes.__getitem__) // batch
    moved = held.elements(read - own) + math.prod(shape)
    multiplied = [recorded.shapes[v] for v in own if len(recorded.shapes[v]) > 1]
    return LayerCost(
        name=op.path or "(the network itself)",
        operator=op.name.removeprefix("aten.").strip("_"),
        macs=macs,
        parameters=held.elements(v for v in own if held.fixed[v]),
        activations=math.prod(shape) // batch,
        traffic=BYTES * (held.elements(own) + moved // batch),
        weight_bytes=BYTES * held.elements(own),
        shape=(max(shape[0] // batch, 1), *shape[1:]) if shape else (),
        weight=max(multiplied, key=math.prod, default=()) if macs else (),
    )
