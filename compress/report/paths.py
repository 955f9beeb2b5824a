"""The way to the result: the cuts of --steps, and the cuts that a search for a bound has tried."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from compress.core.types import Search, Step
from compress.report.types import SlimReport
from compress.report.units import count, duration, percentage, ratio


def paths(report: SlimReport) -> list[RenderableType]:
    """Return a table for the steps and one for the search, of those that there were, each with a line before it."""
    shown: list[RenderableType] = []
    if report.steps:
        shown += [Text("cut and won back in steps"), _steps(report.steps, report.costs_before.macs)]
    if (search := report.search) is not None:
        asked = f"searched for: {search.bound}, on {search.on}; the least that holds is {percentage(search.least)}"
        ended = f"ended: {search.ended}; these images chose the network, others judge it more fairly"
        shown += [Text(asked), _search(search, report.costs_after.macs), Text(ended)]
    return shown


def _table(*columns: str) -> Table:
    table = Table(header_style="bold")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _steps(steps: tuple[Step, ...], before: int) -> Table:
    table = _table("cut", "MACs", "left", "parameters", "reached", "off by", "took")
    for number, step in enumerate(steps, start=1):
        reached, off = step.reached, step.max_relative_error
        said = ""
        if reached is not None and reached.accuracy is not None:
            said = f"top-1 {percentage(reached.accuracy.top1)}"
        elif reached is not None and reached.agreement is not None:
            said = f"same answer {percentage(reached.agreement)}"
        table.add_row(
            str(number),
            count(step.macs),
            ratio(before, step.macs),
            count(step.parameters),
            said,
            "not checked" if off is None else f"{off:.1e}",
            duration(step.seconds),
        )
    return table


def _search(search: Search, chosen: int) -> Table:
    table = _table("try", "MACs", "left", "reached", "holds", "took")
    for number, trial in enumerate(search.trials, start=1):
        holds = "no" if not trial.holds else "yes, taken" if trial.macs == chosen else "yes"
        table.add_row(
            str(number),
            count(trial.macs),
            f"{trial.left:.3f}",
            percentage(trial.reached),
            holds,
            duration(trial.seconds),
        )
    return table
