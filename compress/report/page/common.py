"""Sections that every run has: the commands and the machine, accuracy by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compress.report.page.blocks import Bar, Bars, Block, Command, Facts, Section
from compress.report.page.runs import Run
from compress.report.units import duration


def reproduce(run: Run) -> tuple[Section, ...]:
    """Return the command, versions, machine, seed and times of a run; nothing where none is recorded."""
    data = run.data
    blocks: list[Block] = [Command(run.command)] if run.command else []
    rows = [*_machine(data.get("machine") or {})]
    if versions := data.get("versions"):
        rows.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    rows += [(key, str(data[key])) for key in ("threads", "batch", "seed") if data.get(key) is not None]
    seconds = data.get("seconds")
    if isinstance(seconds, Mapping) and seconds:
        rows.append(("took", ", ".join(f"{stage} {duration(time)}" for stage, time in seconds.items())))
    if rows:
        blocks.append(Facts(tuple(rows)))
    return (Section("Do it again", "", tuple(blocks)),) if blocks else ()


def _machine(machine: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not machine:
        return []
    isa = ", ".join(machine.get("isa") or [])
    cpu = f"{machine.get('cpu', '')}, {machine.get('cores', '?')} cores" + (f" ({isa})" if isa else "")
    rows = [("machine", cpu), ("system", str(machine.get("os", "")))]
    if machine.get("gpu"):
        rows.append(("GPU", str(machine["gpu"])))
    if machine.get("load") is not None:
        rows.append(("load when it ran", f"{machine['load']:.2f}"))
    return rows


def per_class_table(before: Sequence[float], after: Sequence[float], names: Sequence[str] | None) -> Bars:
    """Return a bar a class, weakest after the cut first."""
    named = list(names) if names and len(names) == len(before) else [f"class {i}" for i in range(len(before))]
    order = sorted(range(len(before)), key=lambda i: after[i])
    rows = tuple(
        Bar(named[i], before[i], after[i], f"{100 * before[i]:.1f} → {100 * after[i]:.1f} %", "") for i in order
    )
    return Bars("", rows)
