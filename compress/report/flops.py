"""What every layer costs, in the terminal and as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from compress.measure.layers import LayerCost, NetworkCost, total
from compress.report.jsonfile import finite
from compress.report.units import byte_size, count, percentage

FORMAT = "compress-flops-1"
UNITS = {
    "macs": "multiply-accumulates for one input; FLOPs are twice that",
    "parameters": "elements",
    "activations": "elements of the output, for one input",
    "traffic": "bytes read and written by the operator, once each, for one input",
    "intensity": "FLOPs a byte of traffic",
}


def flops_table(cost: NetworkCost, top: int | None = None) -> RenderableType:
    """Return the layers as a table in their order: the `top` with most MACs and traffic, or all; the sum in the end."""
    shown = set(range(len(cost.layers)))
    if top is not None and top < len(cost.layers):
        dearest = sorted(shown, key=lambda i: (-cost.layers[i].macs, -cost.layers[i].traffic))
        shown = set(dearest[:top])
    table = Table(header_style="bold", box=SIMPLE, pad_edge=False, padding=(0, 1))
    table.add_column("layer", overflow="fold", min_width=12)
    for name in ("operator", "weight", "output"):
        table.add_column(name, no_wrap=True)
    for name in ("MACs", "share", "parameters", "activations", "traffic", "FLOPs / byte"):
        table.add_column(name, justify="right", no_wrap=True)
    for number in sorted(shown):
        table.add_row(*_row(cost.layers[number], cost.macs))
    table.add_section()
    table.add_row(*_total(cost))
    parts: list[RenderableType] = [Text(f"{cost.name}: {count(cost.macs)} MACs for one input", "bold"), table]
    if len(shown) < len(cost.layers):
        parts.append(Text(f"{len(cost.layers) - len(shown)} cheaper operators are not shown; --all shows them"))
    parts += [Text(f"note  {note}") for note in cost.notes]
    return Group(*parts)


def _row(layer: LayerCost, macs: int) -> list[str]:
    return [
        layer.name,
        layer.operator,
        _by(layer.weight),
        _by(layer.shape),
        count(layer.macs) if layer.macs else "",
        percentage(layer.macs / macs) if layer.macs else "",
        count(layer.parameters) if layer.parameters else "",
        count(layer.activations),
        byte_size(layer.traffic),
        f"{layer.intensity:.1f}" if layer.macs else "",
    ]


def _total(cost: NetworkCost) -> list[str]:
    traffic = total(cost.layers, "traffic")
    sums = [count(total(cost.layers, what)) for what in ("parameters", "activations")]
    intensity = f"{2 * cost.macs / traffic:.1f}" if traffic else ""
    return ["total", "", "", "", count(cost.macs), "", *sums, byte_size(traffic), intensity]


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def flops_json(cost: NetworkCost) -> str:
    """Return every figure as a JSON text that ends in a newline."""
    layers: list[dict[str, Any]] = [
        {**dataclasses.asdict(layer), "intensity": layer.intensity} for layer in cost.layers
    ]
    sums = {what: total(cost.layers, what) for what in ("macs", "parameters", "activations", "traffic")}
    tree = {"format": FORMAT, "units": UNITS, "name": cost.name, "total": sums, "layers": layers, "notes": cost.notes}
    return json.dumps(finite(tree), indent=2, allow_nan=False) + "\n"
