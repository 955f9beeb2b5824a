"""The steps to a file in less bits, as a table: what each costs in accuracy and brings in time."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from compress.report.types import DeployStep
from compress.report.units import byte_size, duration, percentage


def deployment(steps: Sequence[DeployStep]) -> Table:
    """Return a row for every step; speed is how many times as fast as the original the step is."""
    judged = any(step.accuracy for step in steps)
    timed = any(step.latency for step in steps)
    table = Table(header_style="bold")
    table.add_column("deployed")
    for name in (
        *(["top-1"] if judged else []),
        "same answer",
        "size",
        *(["latency", "times as fast"] if timed else []),
    ):
        table.add_column(name, justify="right")
    original = next((step.latency.before for step in steps if step.latency), None)
    for step in steps:
        top1 = [percentage(step.accuracy.top1) if step.accuracy else ""] if judged else []
        same = "" if step.agreement is None else percentage(step.agreement)
        size = "" if step.bytes is None else byte_size(step.bytes)
        table.add_row(step.name, *top1, same, size, *(_times(step, original) if timed else []))
    return table


def _times(step: DeployStep, original: float | None) -> list[str]:
    """Latency, and how many times as fast as the original, with the 95 % interval."""
    found = step.latency
    if found is not None:
        return [duration(found.after), f"{1 / found.ratio:.2f} [{1 / found.high:.2f}, {1 / found.low:.2f}]"]
    if original is not None and step.path is None:
        return [duration(original), "1"]
    return [step.note, ""]
