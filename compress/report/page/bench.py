"""A run of `compress bench` as a chapter: every file's latency with what may be said of it, and layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compress.report.page.blocks import Bar, Bars, Block, Cell, Chapter, Facts, Section, Table, plot
from compress.report.page.common import reproduce
from compress.report.page.runs import Run
from compress.report.units import byte_size, count, duration, percentage, ratio


def chapter(run: Run) -> Chapter:
    """Return the chapter of a run of `bench`."""
    data = run.data
    sections = [_latency(data["standings"], data.get("notes", [])), *map(_layers, data.get("layers") or [])]
    names = ", ".join(dict.fromkeys(standing["label"] for standing in data["standings"]))
    return Chapter(run.key, run.name, f"Measured against each other: {names}.", "", (*sections, *reproduce(run)))


def _latency(standings: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> Section:
    slowest = max(standing["seconds"]["p50"] for standing in standings)
    bars = tuple(
        Bar(
            _name(standing),
            min(standing["seconds"]["p90"] / slowest, 1.0),
            standing["seconds"]["p50"] / slowest,
            duration(standing["seconds"]["p50"]),
            _said(standing),
        )
        for standing in standings
    )
    blocks: list[Block] = [Bars("", bars, ("90 of 100 passes", "median")), _table(standings)]
    points = [
        (1e3 * s["seconds"]["p50"], 100 * s["accuracy"], f"{_name(s)}: {percentage(s['accuracy'])}")
        for s in standings
        if s.get("accuracy") is not None
    ]
    if len(points) > 1:
        blocks.append(plot("accuracy against latency", "latency, ms", "top-1, %", [("", sorted(points))], line=False))
    if notes:
        blocks.append(Facts(tuple(("note", note) for note in notes)))
    lead = "All files ran in the same rounds, one after the other; the ratio to the first has its 95 % interval."
    return Section("Latency", lead, tuple(blocks))


def _name(standing: Mapping[str, Any]) -> str:
    where = f"{standing['backend']} {standing['device']}"
    return f"{standing['label']} ({where}, batch {standing['batch']}, {standing['threads']} threads)"


def _said(standing: Mapping[str, Any]) -> str:
    found = standing.get("ratio")
    if not found:
        return "the first, to which the others are compared"
    if found["low"] <= 1 <= found["high"]:
        return "not distinguishable from the first"
    return f"{found['ratio']:.3f} of the first [{found['low']:.3f}, {found['high']:.3f}]"


def _table(standings: Sequence[Mapping[str, Any]]) -> Table:
    rows = tuple(
        (
            Cell(_name(s)),
            *(Cell(duration(s["seconds"][key]), s["seconds"][key]) for key in ("p50", "p90", "p99")),
            Cell(count(s["throughput"]), s["throughput"]),
            Cell(_said(s), (s.get("ratio") or {}).get("ratio", 1.0)),
            Cell(byte_size(s["file_bytes"]) if s.get("file_bytes") else "", s.get("file_bytes") or 0),
            Cell(byte_size(s["peak"]) if s.get("peak") else "", s.get("peak") or 0),
        )
        for s in standings
    )
    return Table("", ("file", "p50", "p90", "p99", "inputs/s", "against the first", "size", "peak memory"), rows)


def _layers(found: Mapping[str, Any]) -> Section:
    changes = found["changes"]
    rows = []
    for change in changes:
        before, after = change["before"], change["after"]
        flops = 2 * after["macs"] / after["seconds"] / 1e9 if after["seconds"] else 0.0
        rows.append(
            (
                Cell(after["name"]),
                Cell("x".join(map(str, after["weight"])) if after.get("weight") else ""),
                Cell(duration(after["seconds"]), after["seconds"]),
                Cell(f"{flops:.1f}", flops),
                Cell(ratio(before["macs"], after["macs"]), after["macs"] / max(before["macs"], 1)),
                Cell(ratio(before["seconds"], after["seconds"]), after["seconds"] / max(before["seconds"], 1e-12)),
                Cell(change.get("words", "")),
            )
        )
    slowest = max((max(c["before"]["seconds"], c["after"]["seconds"]) for c in changes), default=1.0) or 1.0
    bars = tuple(
        Bar(
            change["after"]["name"],
            change["before"]["seconds"] / slowest,
            change["after"]["seconds"] / slowest,
            f"{duration(change['before']['seconds'])} → {duration(change['after']['seconds'])}",
            change.get("words", ""),
        )
        for change in changes
    )
    columns = ("layer", "weight", "time", "GFLOP/s", "MACs, after / before", "time, after / before", "why not less")
    blocks = (Bars("", bars), Table("", columns, tuple(rows)))
    lead = " ".join(found["sentences"])
    return Section(f"Layer by layer: {found['label']} against {found['against']}", lead, blocks)
