"""The way to the result: the cuts of --steps, and the cuts that a search for a bound has tried."""

from __future__ import annotations

from rich.table import Table

from compress.core.types import Search, Step
from compress.report.types import SlimReport
from compress.report.units import count, duration, percentage, ratio


def paths(report: SlimReport) -> list[Table]:
    """Return a table for the steps and one for the search, of those that there were."""
    tables = [_steps(report.steps, report.costs_before.macs)] if report.steps else []
    return [*tables, _search(report.search, report.costs_after.macs)] if report.search is not None else tables


def _table(*columns: str, title: str) -> Table:
    table = Table(header_style="bold", title=title, title_justify="left", title_style="")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _steps(steps: tuple[Step, ...], before: int) -> Table:
    table = _table("cut", "MACs", "left", "parameters", "reached", "off by", "took", title="cut and won back in steps")
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
    title = f"searched for: {search.bound}, on {search.on}; the least that holds is {percentage(search.least)}"
    table = _table("try", "MACs", "left", "reached", "holds", "took", title=title)
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
    table.caption, table.caption_justify = f"ended: {search.ended}", "left"
    return table
