"""What a network's measured latency is made of: layers that a table predicts, and the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from compress.budget.latency import layer_of, layers_of, other_ops
from compress.core.latency import LatencyCosts, LatencyTable
from compress.graph.costs import batch_of, macs_by_op
from compress.graph.trace import Trace
from compress.measure.onnx_layers import onnx_layers
from compress.measure.profile import LayerTime, profiled, with_work


def costs_of(
    recorded: Trace, table: LatencyTable, times: Sequence[LayerTime], *, whole: float, batch: int
) -> LatencyCosts:
    """Divide `whole` seconds of the original among its parts, by its own profile `times`.

    Layers that the table holds are scaled so that they add up to their share of the profile; what multiplies and is
    not in the table is spread over its MACs, everything else over the elements that it makes.
    """
    inside = layers_of(recorded, batch)
    predicted = known = other = 0.0
    for op, macs in macs_by_op(recorded):
        layer = layer_of(op, recorded.shapes.__getitem__, recorded, batch)
        seconds = None if layer is None or layer not in inside else table.seconds(layer, layer[1], layer[2])
        if seconds is None:
            other += macs * batch / batch_of(recorded)
        else:
            predicted += seconds
            known += macs * batch / batch_of(recorded)
    profile = sum(t.seconds for t in times)
    multiplying = sum(t.seconds for t in times if t.macs) / profile if profile else 1.0
    elements = sum(math.prod(recorded.shapes[op.outs[0]]) for op in other_ops(recorded)) * batch / batch_of(recorded)
    if not elements:
        multiplying = 1.0
    # What the table does not hold is taken to multiply as fast as what it holds, on average.
    held = multiplying * known / (known + other) if known + other else 0.0
    return LatencyCosts(
        table=table,
        whole=whole,
        scale=whole * held / predicted if predicted else 0.0,
        per_mac=whole * (multiplying - held) / other if other else 0.0,
        per_element=whole * (1 - multiplying) / elements if elements else 0.0,
        batch=batch,
    )


def profile_of(path: Path, *, batch: int, threads: int, provider: str) -> tuple[LayerTime, ...]:
    """Return how long every layer of the file takes, in the network as a whole."""
    nodes = profiled(path, batch=batch, threads=threads, provider=provider)
    return with_work(nodes, onnx_layers(path), batch)
