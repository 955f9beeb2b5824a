"""A run of `compress verify` as a chapter: how far two files are apart, and what each of them reaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from compress.report.page.blocks import Block, Cell, Chapter, Section, Table, Tile, Tiles
from compress.report.page.common import per_class_table, reproduce
from compress.report.page.runs import Run
from compress.report.units import percentage


def chapter(run: Run) -> Chapter:
    """Return the chapter of a run of `verify`."""
    data = run.data
    first, second = data["first"], data["second"]
    sections = [Section("What is the same", f"Both files ran on {data['on']}.", _blocks(data))]
    one, two = ((side["accuracy"] or {}).get("per_class") for side in (first, second))
    if one and two and None not in {*one, *two}:
        lead = f"Of {first['name']}, and of {second['name']}, each in its own runtime."
        bars = replace(per_class_table(one, two, None), legend=(first["name"], second["name"]))
        sections.append(Section("Accuracy of every class", lead, (bars,)))
    return Chapter(
        key=run.key,
        title=run.name,
        subtitle=f"{second['name']} ({second['format']}) against {first['name']} ({first['format']})",
        badge="the same" if data["same"] else "different",
        good=bool(data["same"]),
        sections=(*sections, *reproduce(run)),
    )


def _blocks(data: Mapping[str, Any]) -> tuple[Block, ...]:
    first, second, least = data["first"], data["second"], data["least_agreement"]
    error = data["max_relative_error"]
    asked = "" if least is not None else f"at most {data['tolerance']:g} asked"
    told = "not finite" if error is None else f"{error:.1e}"
    tiles = [Tile("largest relative error", "", told, asked, None if least is not None else bool(data["same"]))]
    if data["agreement"] is not None:
        asked = "" if least is None else f"at least {percentage(least)} asked"
        better = None if least is None else bool(data["same"])
        tiles.append(Tile("same class", "", percentage(data["agreement"]), asked, better))
    if first["accuracy"] and second["accuracy"]:
        before, after = first["accuracy"]["top1"], second["accuracy"]["top1"]
        change = f"{100 * (after - before):+.2f} points"
        tiles.append(Tile("top-1 accuracy", percentage(before), percentage(after), change, after >= before - 0.01))
    rows = tuple(
        (
            Cell(side["name"]),
            Cell(side["format"]),
            Cell(percentage(side["accuracy"]["top1"]) if side["accuracy"] else ""),
            Cell(f"{side['accuracy']['loss']:.4f}" if side["accuracy"] else ""),
        )
        for side in (first, second)
    )
    return Tiles(tuple(tiles)), Table("", ("file", "format", "top-1", "loss, nats"), rows)
