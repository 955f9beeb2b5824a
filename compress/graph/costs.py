"""MACs of a recorded forward pass, operator by operator, before a cut and after it.

MACs are multiply-accumulates of convolution, linear, matrix product and attention for one input (batch size 1); FLOPs
are twice that.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from compress.core.types import Costs
from compress.graph.modules import tensors_of
from compress.graph.rewrite import Sizes
from compress.graph.rules.table import arguments
from compress.graph.trace import Op, Ref, Trace

Shapes = Callable[[int], tuple[int, ...]]


def _convolution(op: Op, shape: Shapes) -> int:
    """Every output element (or, transposed, every input element) meets one kernel's worth of weights."""
    a = arguments(op)
    weight = shape(a["weight"].value)
    elements = shape(a["input"].value) if a["transposed"] else shape(op.outs[0])
    return math.prod(elements) * math.prod(weight[1:])


def _deformed(op: Op, shape: Shapes) -> int:
    return math.prod(shape(op.outs[0])) * math.prod(shape(arguments(op)["weight"].value)[1:])


def _product(left: str, right: str) -> Callable[[Op, Shapes], int]:
    def macs(op: Op, shape: Shapes) -> int:
        a = arguments(op)
        return math.prod(shape(a[left].value)) * shape(a[right].value)[-1]

    return macs


def _attention(op: Op, shape: Shapes) -> int:
    a = arguments(op)
    query, key, value = (shape(a[name].value) for name in ("query", "key", "value"))
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


_MACS: dict[str, Callable[[Op, Shapes], int]] = {
    "aten.convolution": _convolution,
    "aten._convolution": _convolution,
    "torchvision.deform_conv2d": _deformed,
    "aten.mm": _product("self", "mat2"),
    "aten.bmm": _product("self", "mat2"),
    "aten.addmm": _product("mat1", "mat2"),
    "aten.baddbmm": _product("batch1", "batch2"),
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten._scaled_dot_product_flash_attention": _attention,
    "aten._scaled_dot_product_efficient_attention": _attention,
    "aten._scaled_dot_product_cudnn_attention": _attention,
}


def macs_of(op: Op, shape: Shapes) -> int:
    """MACs of one operator on values of these shapes; 0 for those that do not multiply and accumulate."""
    count = _MACS.get(op.plain)
    return 0 if count is None else count(op, shape)


def macs_by_op(trace: Trace, sizes: Sizes | None = None) -> list[tuple[Op, int]]:
    """(operator, MACs at the traced batch size) of all that multiply; after a cut where `sizes` is given."""
    shape: Shapes = trace.shapes.__getitem__ if sizes is None else sizes.after
    return [(op, macs_of(op, shape)) for op in trace.ops if op.plain in _MACS]


def batch_of(trace: Trace) -> int:
    """The traced batch size, at least 1."""
    return max(trace.batch, 1)


def macs(trace: Trace, sizes: Sizes | None = None) -> int:
    """MACs of one input."""
    return sum(n for _, n in macs_by_op(trace, sizes)) // batch_of(trace)


def costs(module: nn.Module, trace: Trace, sizes: Sizes | None = None) -> Costs:
    """Parameters of `module` and MACs of its trace."""
    return Costs(
        parameters=sum(t.numel() for t in tensors_of(module).values() if isinstance(t, nn.Parameter)),
        macs=macs(trace, sizes),
    )


def norm_scales(traces: tuple[Trace, ...]) -> frozenset[str]:
    """Names of the parameters that scale a batch normalisation (gamma)."""
    found = set()
    for trace in traces:
        names = {value: name for name, value in trace.parameters.items()}
        for op in trace.ops:
            if "batch_norm" in op.name:
                weight = arguments(op).get("weight")
                if isinstance(weight, Ref) and weight.value in names:
                    found.add(names[weight.value])
    return frozenset(found)
