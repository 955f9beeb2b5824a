"""As much latency as one can afford, by a table of layer times measured on the device: importance per time saved.

HALP (Shen et al., NeurIPS 2022, arXiv:2110.10811) ranks neurons by importance under a budget of table latency; here the
blocks leave by the same exchange as for MACs, and only the meter differs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from compress.budget.amounts import meter_of
from compress.budget.meter import Extents, Item, Meter, Shapes
from compress.core.budgets import Latency
from compress.core.errors import UsageError
from compress.core.latency import LatencyCosts, Layer, LayerShape
from compress.graph.analyse import Analysis
from compress.graph.costs import batch_of, macs_by_op, macs_of
from compress.graph.couplings import operands
from compress.graph.rules.table import arguments
from compress.graph.trace import Op, Ref, Trace

# The meter counts whole picoseconds, of which a microsecond has so many: sums of integers come back exactly.
PER_MICROSECOND = 10**6
PER_SECOND = 10**12
# Runtimes fold these into the layer before them.
FOLDED = ("batch_norm", "relu", "hardtanh", "clamp")


@meter_of.register
def meter_of_latency(budget: Latency, analysis: Analysis) -> Meter:
    """Predicted time; UsageError where nothing was measured that it could be predicted from."""
    if budget.costs is None:
        raise UsageError(
            "a budget of latency needs times that are measured on this device",
            fix="use `compress slim CHECKPOINT --latency 0.5`",
        )
    return latency_meter(analysis, budget.costs)


def latency_meter(analysis: Analysis, costs: LatencyCosts) -> Meter:
    """Predicted picoseconds of a pass over `costs.batch` inputs, `per` microsecond."""
    recorded, layouts = analysis.traces[0], analysis.layouts[0]

    def extents(value: int) -> Extents:
        return [(dims[0], labels) for dims, labels in layouts.get(value, ()) if len(dims) == 1]

    items = [_layer_item(op, recorded, costs) for op, _ in macs_by_op(recorded)]
    each = costs.per_element * costs.batch / batch_of(recorded) * PER_SECOND
    items += [_element_item(op.outs[0], each) for op in other_ops(recorded)]
    return Meter(analysis, items, recorded.shapes.__getitem__, extents, per=PER_MICROSECOND)


def _layer_item(op: Op, recorded: Trace, costs: LatencyCosts) -> Item:
    layer = layer_of(op, recorded.shapes.__getitem__, recorded, costs.batch)
    values = tuple({*operands(op), *op.outs})
    if layer is not None and layer in costs.table.grids:
        known, table = layer, costs.table

        def measured(shape: Shapes) -> int:
            inputs, outputs = widths(op, shape)
            return round(costs.scale * (table.seconds(known, inputs, outputs) or 0.0) * PER_SECOND)

        return Item(values, measured)
    each = costs.per_mac * costs.batch / batch_of(recorded) * PER_SECOND
    return Item(values, lambda shape: round(each * macs_of(op, shape)))


def _element_item(value: int, each: float) -> Item:
    return Item((value,), lambda shape: round(each * math.prod(shape(value))))


def other_ops(recorded: Trace) -> Iterator[Op]:
    """Operators that take time of their own and multiply nothing: no views, nothing that is folded into a layer."""
    multiply = {id(op) for op, _ in macs_by_op(recorded)}
    for op in recorded.ops:
        aliases = [r.alias_info for r in op.func._schema.returns]
        view = any(alias is not None and not alias.is_write for alias in aliases)
        if op.outs and not view and id(op) not in multiply and not any(part in op.name for part in FOLDED):
            yield op


def layers_of(recorded: Trace, batch: int) -> dict[Layer, int]:
    """Return the network's layers that a table can hold, and the MACs of one input in all layers of that shape."""
    found: dict[Layer, int] = {}
    for op, macs in macs_by_op(recorded):
        layer = layer_of(op, recorded.shapes.__getitem__, recorded, batch)
        if layer is not None:
            found[layer] = found.get(layer, 0) + macs // batch_of(recorded)
    return found


def layer_of(op: Op, shape: Shapes, recorded: Trace, batch: int) -> Layer | None:
    """Return the layer that an operator is at `batch` inputs; None for what is not a convolution or linear layer."""
    a = arguments(op)
    if op.name in {"aten.mm", "aten.addmm"}:
        rows = shape(a["mat1" if op.name == "aten.addmm" else "self"].value)[0] // batch_of(recorded)
        return (LayerShape("linear", max(rows, 1) * batch), *widths(op, shape))
    if op.name not in {"aten.convolution", "aten._convolution"} or a["transposed"]:
        return None
    image, weight = shape(a["input"].value), shape(a["weight"].value)
    spatial = len(image) - 2
    depthwise = weight[1] == 1 and image[1] > 1
    return (
        LayerShape(
            kind="depthwise" if depthwise else "conv",
            rows=batch,
            size=tuple(image[2:]),
            kernel=tuple(weight[2:]),
            stride=_each(a["stride"], spatial),
            padding=_each(a["padding"], spatial),
            dilation=_each(a["dilation"], spatial),
            groups=1 if depthwise else int(a["groups"]),
        ),
        *widths(op, shape),
    )


def widths(op: Op, shape: Shapes) -> tuple[int, int]:
    """Return the input and output width of a convolution or linear layer."""
    a = arguments(op)
    if "weight" in a:
        return shape(a["input"].value)[1], shape(a["weight"].value)[0]
    left, right = (a["mat1"], a["mat2"]) if "mat1" in a else (a["self"], a["mat2"])
    assert isinstance(left, Ref)
    return shape(left.value)[-1], shape(right.value)[-1]


def _each(given: list[int], dims: int) -> tuple[int, ...]:
    return tuple(int(x) for x in given) if len(given) == dims else (int(given[0]),) * dims
