"""A run of `compress flops` as a chapter: what every layer costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.report.page.blocks import Bar, Bars, Cell, Chapter, Section, Table, Tile, Tiles
from compress.report.page.common import reproduce
from compress.report.page.runs import Run
from compress.report.units import byte_size, count

SHOWN = 60  # layers in the bar chart: those with the most MACs; the table has all


def chapter(run: Run) -> Chapter:
    """Return the chapter of a run of `flops`."""
    data, total = run.data, run.data["total"]
    tiles = (
        Tile("MACs for one input", "", count(total["macs"]), f"{count(2 * total['macs'])} FLOPs"),
        Tile("parameters", "", count(total["parameters"]), ""),
        Tile("activations", "", count(total["activations"]), "numbers that layers write"),
        Tile("memory traffic", "", byte_size(total["traffic"]), "read and written once a layer"),
    )
    sections = (
        Section("What one pass costs", "", (Tiles(tiles),)),
        Section("Layer by layer", "Layers that multiply, in the order in which they run.", (_bars(data), _table(data))),
        *reproduce(run),
    )
    return Chapter(run.key, run.name, f"What `compress flops` counted in {data['name']}.", "", sections)


def _bars(data: Mapping[str, Any]) -> Bars:
    multiplying = [layer for layer in data["layers"] if layer["macs"]]
    least = sorted((layer["macs"] for layer in multiplying), reverse=True)[:SHOWN][-1:] or [0]
    shown = [layer for layer in multiplying if layer["macs"] >= least[0]]
    most = max((layer["macs"] for layer in shown), default=1)
    traffic = max((layer["traffic"] for layer in shown), default=1) or 1
    rows = tuple(
        Bar(
            layer["name"],
            layer["traffic"] / traffic,
            layer["macs"] / most,
            f"{count(layer['macs'])} MACs",
            _note(layer),
        )
        for layer in shown
    )
    return Bars("", rows, ("memory traffic", "MACs"))


def _note(layer: Mapping[str, Any]) -> str:
    return f"{byte_size(layer['traffic'])} of memory traffic, {layer['intensity']:.1f} FLOPs a byte"


def _table(data: Mapping[str, Any]) -> Table:
    rows = tuple(
        (
            Cell(layer["name"]),
            Cell(layer["operator"]),
            Cell(count(layer["macs"]), layer["macs"]),
            Cell(count(layer["parameters"]), layer["parameters"]),
            Cell(count(layer["activations"]), layer["activations"]),
            Cell(byte_size(layer["traffic"]), layer["traffic"]),
            Cell(f"{layer['intensity']:.1f}", layer["intensity"]),
        )
        for layer in data["layers"]
    )
    return Table("", ("layer", "operator", "MACs", "parameters", "activations", "traffic", "FLOPs a byte"), rows)
