"""A run of `compress slim` as a chapter: headline, recovery, classes, channels, latency, and how to do it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from compress.report.page.blocks import (
    Bar,
    Bars,
    Block,
    Cell,
    Chapter,
    Facts,
    Plot,
    Section,
    Table,
    Tick,
    Tile,
    Tiles,
    plot,
)
from compress.report.page.common import per_class_table, reproduce
from compress.report.page.path import ways
from compress.report.page.runs import Run
from compress.report.units import byte_size, count, duration, percentage, ratio


def chapter(run: Run) -> Chapter:
    """Return the chapter of a run of `slim`."""
    data = run.data
    exact = (data.get("exactness") or {}).get("exact")
    first, last = [_headline(data), _recovery(data)], [_classes(data), _channels(data), _latency(data), _files(data)]
    sections = [*first, *ways(data), *last]
    return Chapter(
        key=run.key,
        title=run.name,
        subtitle=_subtitle(data),
        badge={True: "exact", False: "not exact", None: "not checked"}[exact],
        good=bool(exact),
        sections=(*(section for section in sections if section is not None), *reproduce(run)),
    )


def _subtitle(data: Mapping[str, Any]) -> str:
    source, cut = data["source"], data["cut"]
    share = f"{cut['removed']:,} of {cut['channels']:,} prunable channels removed"
    return f"{source['name']} ({source.get('arch') or 'its own graph'}): {share} by {cut['importance']}"


def tiles(data: Mapping[str, Any]) -> tuple[Tile, ...]:
    """Return accuracy (or agreement), MACs, parameters, file size and latency, as far as they were measured."""
    found = []
    original, pruned = data["accuracy"]["original"], data["accuracy"]["pruned"]
    if original and pruned:
        points = 100 * (pruned["top1"] - original["top1"])
        before, after = percentage(original["top1"]), percentage(pruned["top1"])
        found.append(Tile("top-1 accuracy", before, after, f"{points:+.2f} points", points >= -1))
    elif data.get("agreement") is not None:
        found.append(Tile("same answer as before", "", percentage(data["agreement"]), "", None))
    before, after = data["costs"]["before"], data["costs"]["after"]
    for label, key in (("MACs", "macs"), ("parameters", "parameters")):
        change = f"{ratio(before[key], after[key])} of it"
        found.append(Tile(label, count(before[key]), count(after[key]), change, after[key] < before[key]))
    if size := data.get("file_bytes"):
        change = f"{ratio(size['before'], size['after'])} of it"
        label, smaller = f"file, {size['what']}", size["after"] < size["before"]
        found.append(Tile(label, byte_size(size["before"]), byte_size(size["after"]), change, smaller))
    for speed in data.get("latency", []):
        change = f"{speed['ratio']:.3f} of it [{speed['low']:.3f}, {speed['high']:.3f}]"
        label = f"latency, {speed['runtime']} {speed['device']}"
        faster = speed["high"] < 1 or (None if speed["low"] <= 1 else False)
        found.append(Tile(label, duration(speed["before"]), duration(speed["after"]), change, faster))
    return tuple(found)


def _headline(data: Mapping[str, Any]) -> Section:
    verdict = data.get("exactness")
    lead = "The exactness check was switched off."
    if verdict:
        error = (
            f"largest relative error {verdict['max_relative_error']:.1e} in float64, {verdict['tolerance']:.0e} allowed"
        )
        lead = f"The cut network against {verdict['reference']}: {error}."
    blocks: list[Block] = [Tiles(tiles(data))]
    if data.get("warnings"):
        blocks.append(Facts(tuple(("warning", text) for text in data["warnings"])))
    return Section("Before and after", lead, tuple(blocks))


def _recovery(data: Mapping[str, Any]) -> Section | None:
    stages = [stage for stage in data.get("stages", []) if stage.get("kept", True)]
    original = data["accuracy"]["original"]
    measured = [stage for stage in stages if stage.get("accuracy")]
    rows = tuple(_stage(stage) for stage in data.get("stages", []))
    if not rows:
        return None
    table = Table("", ("step", "top-1", "same answer", "distance", "took", ""), rows)
    blocks: list[Block] = [table]
    if measured and original:
        values = [("original", original["top1"]), *((s["name"], s["accuracy"]["top1"]) for s in measured)]
        points = [(float(i), 100 * top1, f"{name}: {percentage(top1)}") for i, (name, top1) in enumerate(values)]
        drawn = plot("top-1 accuracy after every step, %", "", "", [("top-1", points)])
        blocks.insert(0, _named(drawn, [name for name, _ in values]))
    learned = f"from {data['calibration']}" if data.get("calibration") else "without calibration inputs"
    return Section("What the cut cost, and what was won back", f"Every step of the recovery, {learned}.", tuple(blocks))


def _named(drawn: Plot, names: Sequence[str]) -> Plot:
    """Put names where the horizontal axis has numbers."""
    places = drawn.series[0].dots
    return replace(drawn, x_ticks=tuple(Tick(dot.x, name) for dot, name in zip(places, names, strict=True)))


def _stage(stage: Mapping[str, Any]) -> tuple[Cell, ...]:
    accuracy = stage.get("accuracy") if stage.get("kept", True) else None
    same, apart = stage.get("agreement"), stage.get("distance")
    return (
        Cell(stage["name"] if stage.get("kept", True) else f"{stage['name']}: no help, taken back"),
        Cell(percentage(accuracy["top1"]) if accuracy else "", accuracy["top1"] if accuracy else -1),
        Cell("" if same is None else percentage(same), same or 0.0),
        Cell("" if apart is None else f"{apart:.4f}", apart or 0.0),
        Cell(duration(stage["seconds"]) if stage.get("seconds") else "", stage.get("seconds", 0.0)),
        Cell(stage.get("note", "")),
    )


def _classes(data: Mapping[str, Any]) -> Section | None:
    original, pruned = data["accuracy"]["original"], data["accuracy"]["pruned"]
    if not original or not pruned or not original.get("per_class"):
        return None
    table = per_class_table(original["per_class"], pruned["per_class"], data.get("classes"))
    return Section("Accuracy of every class", f"Measured on {data['data']}.", (table,))


def _channels(data: Mapping[str, Any]) -> Section:
    groups = data["cut"]["groups"]
    widest = max((group["before"] for group in groups), default=1)
    rows = tuple(
        Bar(
            group["name"],
            group["before"] / widest,
            group["after"] / widest,
            f"{group['before']:,} → {group['after']:,}",
            f"stays: {group['pinned']}" if group.get("pinned") else "",
        )
        for group in groups
    )
    lead = "A row is a group of channels that leave together, in the order of the network."
    return Section("Channels", lead, (Bars("", rows),))


def _latency(data: Mapping[str, Any]) -> Section | None:
    speeds = data.get("latency", [])
    if not speeds:
        return None
    slowest = max(max(s["before"], s["after"]) for s in speeds)
    rows = tuple(
        Bar(
            f"{s['runtime']} {s['device']}",
            s["before"] / slowest,
            s["after"] / slowest,
            f"{duration(s['before'])} → {duration(s['after'])}",
            f"ratio {s['ratio']:.3f}, 95 % interval {s['low']:.3f} to {s['high']:.3f}, {s['rounds']} rounds",
        )
        for s in speeds
    )
    first = speeds[0]
    lead = f"Measured in interleaved rounds, {first['threads']} threads, batch {first['batch']}."
    return Section("Latency", lead, (Bars("", rows),))


def _files(data: Mapping[str, Any]) -> Section | None:
    rows = [
        (f["path"], f"{f['target']}, {byte_size(f['bytes'])}, off by at most {f['max_relative_error']:.1e}")
        for f in data.get("exported", [])
    ]
    rows += [(data[key], what) for key, what in (("saved", "weights and plan"), ("plan_out", "plan")) if data.get(key)]
    delivered = data.get("delivered", {})
    told = delivered.get("what", "") + (f" ({delivered['why']})" if delivered.get("why") else "")
    return Section("What was delivered", f"The network is {told}.", (Facts(tuple(rows)),) if rows else ())
