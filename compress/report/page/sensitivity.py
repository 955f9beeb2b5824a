"""A run of `compress sensitivity` as a chapter: a heat map of the groups, and what each residual block is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.report.page.blocks import Bar, Bars, Block, Cell, Chapter, Section, Table
from compress.report.page.common import reproduce
from compress.report.page.runs import Run
from compress.report.page.sweep import value_of
from compress.report.units import count, percentage


def chapter(run: Run) -> Chapter:
    """Return the chapter of a run of `sensitivity`."""
    data = run.data
    word = "top-1" if data["original"].get("top1") is not None else "same answer"
    before = value_of(data["original"])
    lead = (
        f"{word}, %, with so much of one group gone; {percentage(before)} before. Ranked by {data['importance']} on "
        f"{data['ranked_on']}."
    )
    sections = [Section("Groups", lead, (_heat(data, before),))]
    if data.get("blocks"):
        sections.append(Section("Residual blocks", "Each block reduced to its shortcut.", _blocks(data, before)))
    network = data["network"]["name"]
    return Chapter(run.key, run.name, f"What {network} minds losing.", "", (*sections, *reproduce(run)))


def _heat(data: Mapping[str, Any], before: float) -> Table:
    """A row a group, a column a share; the colour is the loss, on one scale."""
    reached = [[None if r is None else value_of(r) for r in group["reached"]] for group in data["groups"]]
    worst = max((before - v for row in reached for v in row if v is not None), default=0.0) or 1.0

    def cell(value: float | None) -> Cell:
        if value is None:
            return Cell("", -1.0)
        return Cell(f"{100 * value:.1f}", value, round(max(before - value, 0.0) / worst, 3))

    rows = tuple(
        (Cell(group["name"]), Cell(str(group["channels"]), group["channels"]), *map(cell, values))
        for group, values in zip(data["groups"], reached, strict=True)
    )
    columns = ("group", "channels", *(f"{100 * share:.0f} %" for share in data["shares"]))
    return Table("", columns, rows, heat=True)


def _blocks(data: Mapping[str, Any], before: float) -> tuple[Block, ...]:
    blocks = sorted(data["blocks"], key=lambda block: -value_of(block["reached"]))
    bars = tuple(
        Bar(
            block["name"],
            before,
            value_of(block["reached"]),
            f"{100 * (value_of(block['reached']) - before):+.2f} points",
            f"{count(block['macs'])} MACs and {count(block['parameters'])} parameters go with its branch",
        )
        for block in blocks
    )
    return (Bars("", bars, ("with the block", "with its shortcut only")),)
