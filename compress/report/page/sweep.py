"""A run of `compress sweep` as a chapter: accuracy against the channels removed, a line for every criterion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.report.page.blocks import Block, Cell, Chapter, Facts, Section, Table, plot
from compress.report.page.common import reproduce
from compress.report.page.runs import Run
from compress.report.units import duration, percentage


def chapter(run: Run) -> Chapter:
    """Return the chapter of a run of `sweep`."""
    data = run.data
    word = "top-1" if data["original"].get("top1") is not None else "same answer"
    lines = [(curve["importance"], _line(curve, data["original"])) for curve in data["curves"]]
    drawn = plot("", f"channels removed of {data['channels']}", f"{word}, %", lines)
    took = data["seconds"]
    actual = took["prepared"] + took["total"]
    facts = (
        ("removed", data["what"]),
        ("ranked on", data["ranked_on"]),
        (
            "exactness",
            f"every point is a cut network; against the masked one {data['exactness']['max_relative_error']:.1e}",
        ),
        ("took", f"{duration(actual)}, {data['share_of_full']:.3f} of as many full evaluations"),
    )
    blocks: tuple[Block, ...] = (drawn, _table(data), Facts(facts))
    lead = f"{word}, %, measured on {data['images']:,} images of {data['data']['name']}."
    title = f"What leaving channels of {data['layer']} costs"
    network = data["network"]["name"]
    return Chapter(run.key, run.name, f"Sweep of {network}.", "", (Section(title, lead, blocks), *reproduce(run)))


def value_of(reached: Mapping[str, Any]) -> float:
    """Return the figure that is shown, a fraction: accuracy, or agreement where there were no labels."""
    top1 = reached.get("top1")
    return float(reached["agreement"] if top1 is None else top1)


def _line(curve: Mapping[str, Any], original: Mapping[str, Any]) -> list[tuple[float, float, str]]:
    values = [(0, value_of(original)), *((p["removed"], value_of(p["reached"])) for p in curve["points"])]
    name = curve["importance"]
    return [(float(k), 100 * value, f"{name}, {k} removed: {percentage(value)}") for k, value in values]


def _table(data: Mapping[str, Any]) -> Table:
    columns = ("removed", "weight", *(curve["importance"] for curve in data["curves"]))
    rows = []
    for points in zip(*(curve["points"] for curve in data["curves"]), strict=False):
        values = [value_of(point["reached"]) for point in points]
        shape = "x".join(str(size) for size in points[0]["shape"])
        removed = points[0]["removed"]
        rows.append((Cell(str(removed), removed), Cell(shape), *(Cell(percentage(v), v) for v in values)))
    return Table("", columns, tuple(rows))
