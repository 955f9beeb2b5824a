"""Several runs side by side: accuracy against latency and against MACs, and a table to sort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compress.report.page.blocks import Block, Cell, Section, Table, plot
from compress.report.page.runs import Run
from compress.report.units import count, duration, percentage


def comparison(runs: Sequence[Run]) -> Section | None:
    """Return the section that compares the runs of `slim`; None where there are fewer than two."""
    cuts = [run for run in runs if run.kind == "slim"]
    if len(cuts) < 2:
        return None
    blocks: list[Block] = []
    measured = [run for run in cuts if run.data["accuracy"]["pruned"]]
    if len(measured) > 1:
        blocks.append(_against(measured, "MACs, fraction of the original's", _macs_share))
        timed = [run for run in measured if run.data.get("latency")]
        if len(timed) > 1:
            what = timed[0].data["latency"][0]
            label = f"latency, {what['runtime']} {what['device']}, ms"
            blocks.append(_against(timed, label, lambda data: 1e3 * data["latency"][0]["after"]))
    blocks.append(_table(cuts))
    return Section("All runs", "What each cut kept, against what it costs.", tuple(blocks))


def _macs_share(data: Mapping[str, Any]) -> float:
    return float(data["costs"]["after"]["macs"] / data["costs"]["before"]["macs"])


def _against(runs: Sequence[Run], label: str, cost: Any) -> Block:
    points = []
    for run in runs:
        top1 = run.data["accuracy"]["pruned"]["top1"]
        points.append((cost(run.data), 100 * top1, f"{run.name}: {percentage(top1)} at {cost(run.data):.3g}"))
    points.sort()
    return plot(f"top-1 accuracy, %, against {label}", label, "top-1, %", [("cut", points)])


def _table(runs: Sequence[Run]) -> Table:
    rows = []
    for run in runs:
        data, after = run.data, run.data["costs"]["after"]
        accuracy = data["accuracy"]["pruned"]
        speed = (data.get("latency") or [None])[0]
        rows.append(
            (
                Cell(run.name),
                Cell(percentage(accuracy["top1"]) if accuracy else "", accuracy["top1"] if accuracy else -1.0),
                Cell(count(after["macs"]), after["macs"]),
                Cell(count(after["parameters"]), after["parameters"]),
                Cell(duration(speed["after"]) if speed else "", speed["after"] if speed else -1.0),
                Cell(f"{speed['ratio']:.3f}" if speed else "", speed["ratio"] if speed else -1.0),
            )
        )
    return Table("", ("run", "top-1", "MACs", "parameters", "latency", "of the original's"), tuple(rows))
