"""The way to the result of a run of `slim`: the cuts of --steps, and those that a search for a bound has tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compress.report.page.blocks import Block, Cell, Section, Table, plot
from compress.report.units import count, duration, percentage

MACS = "MACs left, % of the original's"


def ways(data: Mapping[str, Any]) -> tuple[Section, ...]:
    """Return a section for the search and one for the steps, of those that there were."""
    found = []
    if search := data.get("search"):
        found.append(_search(search, data["costs"]["after"]["macs"]))
    if steps := data.get("steps"):
        found.append(_steps(steps, data["costs"]["before"]["macs"]))
    return tuple(found)


def _search(search: Mapping[str, Any], kept: int) -> Section:
    """Every try at its place, joined in the order of the MACs; the one that was kept, and what had to be reached."""
    trials = list(enumerate(search["trials"], start=1))
    word = "top-1" if "top-1" in search["bound"] else "same answer"
    points = [
        (100 * t["left"], 100 * t["reached"], f"cut {number}: {percentage(t['reached'])} at {100 * t['left']:.1f} %")
        for number, t in trials
    ]
    least = 100 * search["least"]
    ends = sorted([min(p[0] for p in points), 100.0])
    series = [
        ("tried", sorted([*points, (100.0, 100 * search["original"], "the original")])),
        ("the least allowed", [(x, least, f"at least {least:.2f} %") for x in ends]),
        ("kept", [p for p, (_, t) in zip(points, trials, strict=True) if _taken(t, kept)]),
    ]
    rows = tuple(
        (
            Cell(str(number), number),
            Cell(count(t["macs"]), t["macs"]),
            Cell(f"{100 * t['left']:.1f} %", t["left"]),
            Cell(percentage(t["reached"]), t["reached"]),
            Cell("kept" if _taken(t, kept) else "yes" if t["holds"] else "no"),
            Cell(duration(t["seconds"]), t["seconds"]),
        )
        for number, t in trials
    )
    columns = ("cut", "MACs", "left", word, "holds", "took")
    blocks: tuple[Block, ...] = (
        plot(f"{word} of every cut that was tried, %", MACS, f"{word}, %", series),
        Table("", columns, rows),
    )
    lead = (
        f"Asked: {search['bound']}, on {search['on']}. Ended: {search['ended']}. These images chose the network; "
        "others judge it more fairly."
    )
    return Section("The search for the smallest network", lead, blocks)


def _taken(trial: Mapping[str, Any], kept: int) -> bool:
    return bool(trial["holds"]) and trial["macs"] == kept


def _steps(steps: Sequence[Mapping[str, Any]], whole: int) -> Section:
    """Every cut on the way, and what the network reached once it was won back."""
    reached = [_reached(step) for step in steps]
    rows = tuple(
        (
            Cell(str(number), number),
            Cell(count(step["macs"]), step["macs"]),
            Cell(f"{100 * step['macs'] / whole:.1f} %", step["macs"]),
            Cell(count(step["parameters"]), step["parameters"]),
            Cell("" if got is None else f"{got[0]} {percentage(got[1])}", -1.0 if got is None else got[1]),
            Cell(duration(step["seconds"]), step["seconds"]),
        )
        for number, (step, got) in enumerate(zip(steps, reached, strict=True), start=1)
    )
    blocks: list[Block] = [Table("", ("step", "MACs", "left", "parameters", "reached", "took"), rows)]
    points = [
        (100 * step["macs"] / whole, 100 * got[1], f"step {number}: {percentage(got[1])}")
        for number, (step, got) in enumerate(zip(steps, reached, strict=True), start=1)
        if got is not None
    ]
    if len(points) > 1:
        word = next(got[0] for got in reached if got is not None)
        blocks.insert(0, plot(f"{word} after every step, %", MACS, f"{word}, %", [(word, sorted(points))]))
    return Section("Cut and won back in steps", "Each step looks anew at what the last one won back.", tuple(blocks))


def _reached(step: Mapping[str, Any]) -> tuple[str, float] | None:
    """What was measured after the step, and its name."""
    reached = step.get("reached") or {}
    if reached.get("accuracy"):
        return "top-1", float(reached["accuracy"]["top1"])
    return None if reached.get("agreement") is None else ("same answer", float(reached["agreement"]))
