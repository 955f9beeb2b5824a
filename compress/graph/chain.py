"""The widths of a plain chain, as such networks are built from a list: numbers, and "M" for pooling."""

from __future__ import annotations

from collections.abc import Callable

from compress.graph.couplings import operands
from compress.graph.trace import Trace

_POOLS = ("aten.max_pool2d_with_indices", "aten.max_pool2d", "aten.avg_pool2d")


def widths(trace: Trace, shape: Callable[[int], tuple[int, ...]]) -> tuple[int | str, ...] | None:
    """Outputs of the convolutions in order with "M" for each pooling; of the linear layers where there is no other.

    `shape` gives the shape of a value, after a cut where that is asked for. None where the network is no chain: where
    an operator reads two values that depend on the input.
    """
    parameters = set(trace.parameters.values())
    moving = set(trace.inputs)
    convolutions: list[int | str] = []
    linear: list[int | str] = []
    for op in trace.ops:
        read = {v for v in operands(op) if v in moving}
        if len(read) > 1:
            return None
        if not read:
            continue
        moving.update(v for v in op.outs if v not in parameters)
        if op.name in _POOLS and convolutions:
            convolutions.append("M")
        elif op.name == "aten.convolution":
            convolutions.append(shape(op.outs[0])[1])
        elif op.name in ("aten.addmm", "aten.mm"):
            linear.append(shape(op.outs[0])[-1])
    found = convolutions or linear
    return tuple(found) if found else None
