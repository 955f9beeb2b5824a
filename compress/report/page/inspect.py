"""A run of `compress inspect` as a chapter: what could leave, what it carries, and why the rest stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.report.page.blocks import Bar, Bars, Cell, Chapter, Section, Table, Tile, Tiles
from compress.report.page.common import reproduce
from compress.report.page.runs import Run
from compress.report.units import count, percentage


def chapter(run: Run) -> Chapter:
    """Return the chapter of a run of `inspect`."""
    data = run.data
    free = data["prunable_outputs"] / max(data["outputs"], 1)
    tiles = (
        Tile("MACs for one input", "", count(data["macs"]), ""),
        Tile("parameters", "", count(data["parameters"]), ""),
        Tile(
            "output channels free to leave",
            "",
            percentage(free),
            f"{data['prunable_outputs']:,} of {data['outputs']:,}",
        ),
    )
    groups = Section(
        "Groups",
        "Channels that leave together, with the MACs that vanish when all of them leave. A layer "
        "between two groups counts in both.",
        (_bars(data), _table(data)),
    )
    sections = (Section("What could leave", "", (Tiles(tiles),)), groups, *reproduce(run))
    return Chapter(run.key, run.name, f"What `compress inspect` found in {data['network']}.", "", sections)


def _bars(data: Mapping[str, Any]) -> Bars:
    largest = max((group["macs"] for group in data["groups"]), default=0) or 1
    rows = tuple(
        Bar(
            group["name"],
            group["macs"] / largest,
            group["macs"] / largest if group["prunable"] else 0.0,
            f"{count(group['macs'])} MACs, {group['channels']:,} channels",
            "; ".join(_reason(reason) for reason in group["pinned"]),
        )
        for group in data["groups"]
    )
    return Bars("", rows, ("has to stay", "free to leave"))


def _table(data: Mapping[str, Any]) -> Table:
    rows = tuple(
        (
            Cell(group["name"]),
            Cell(f"{group['channels']:,}", group["channels"]),
            Cell(count(group["macs"]), group["macs"]),
            Cell(count(group["parameters"]), group["parameters"]),
            Cell("; ".join(_reason(reason) for reason in group["pinned"]) or "free"),
        )
        for group in data["groups"]
    )
    return Table("", ("group", "channels", "MACs", "parameters", "why it stays"), rows)


def _reason(reason: Mapping[str, str]) -> str:
    place = f", {reason['operator']} at {reason['where']}" if reason.get("operator") else ""
    return f"{reason['why']}{place}"
