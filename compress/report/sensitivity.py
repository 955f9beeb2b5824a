"""How much a network minds losing channels of each group, and each residual block; as tables, JSON and a plot."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group as Parts
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from compress.evaluation.variants import Tally
from compress.report.exploring import Variants, facts, measured
from compress.report.sweep import arithmetic, took, value_of
from compress.report.units import count, percentage


@dataclass(frozen=True, slots=True)
class GroupLoss:
    """A group of `channels`: with `removed[i]` gone the network reaches `reached[i]`; None where that cannot be cut."""

    name: str
    channels: int
    removed: tuple[int, ...]
    reached: tuple[Tally | None, ...]


@dataclass(frozen=True, slots=True)
class BlockLoss:
    """A residual block reduced to its shortcut: what the network reaches, and what the branch costs for one input.

    `key` is the branch's first layer, `identity` tells that the shortcut is the block's input itself.
    """

    name: str
    key: str
    identity: bool
    parameters: int
    macs: int
    reached: Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity(Variants):
    """Everything that one run of `compress sensitivity` found; `shares` are fractions of each group's channels."""

    importance: str
    formula: str
    shares: tuple[float, ...]
    groups: tuple[GroupLoss, ...]
    blocks: tuple[BlockLoss, ...]

    @property
    def points(self) -> int:
        """Number of networks that were measured."""
        return len(self.blocks) + sum(len(set(g.removed)) for g in self.groups)


def tree(found: Sensitivity) -> dict[str, Any]:
    """The figures as they stand in the JSON file."""
    return {
        "importance": found.importance,
        "formula": found.formula,
        "shares": list(found.shares),
        "groups": [asdict(g) for g in found.groups],
        "blocks": [asdict(b) for b in found.blocks],
        **measured(found, found.points),
    }


def told(found: Sensitivity) -> RenderableType:
    """Return the findings as something rich can print."""
    what = "same answer" if found.original.top1 is None else "top-1"
    title = f"{found.origin.network}: {what} {percentage(value_of(found.original))} before anything leaves"
    parts: list[RenderableType] = [Text(title, "bold"), _groups(found, what)]
    if found.blocks:
        parts.append(_blocks(found, what))
    rows = [
        ("importance", f"{found.importance}: {found.formula}"),
        ("ranked on", found.ranked_on),
        ("took", took(found.points, found.costing, found.prepared)),
        ("arithmetic", arithmetic(found.precision)),
    ]
    parts.append(facts(found.origin, (found.images, found.asked), rows, found.notes, complete=found.complete))
    return Parts(*parts)


def _groups(found: Sensitivity, what: str) -> Table:
    table = Table(header_style="bold", title=f"{what}, %, with so much of one group gone", title_justify="left")
    table.add_column("group", overflow="fold")
    table.add_column("channels", justify="right")
    for share in found.shares:
        table.add_column(f"{100 * share:.0f} %", justify="right")
    for row in found.groups:
        cells = ["" if r is None else f"{100 * value_of(r):.1f}" for r in row.reached]
        table.add_row(row.name, str(row.channels), *cells)
    return table


def _blocks(found: Sensitivity, what: str) -> Table:
    """The blocks, the one that is missed least first."""
    table = Table(header_style="bold", title="residual blocks reduced to their shortcuts", title_justify="left")
    for name in ("block", what, "points", "parameters", "MACs", "shortcut"):
        table.add_column(name, justify="left" if name in ("block", "shortcut") else "right")
    before = value_of(found.original)
    for row in sorted(found.blocks, key=lambda b: -value_of(b.reached)):
        now = value_of(row.reached)
        kind = "its input" if row.identity else "layers of its own"
        change = f"{100 * (now - before):+.2f}"
        table.add_row(row.name, percentage(now), change, count(row.parameters), count(row.macs), kind)
    return table


def draw(found: Sensitivity, path: Path) -> None:
    """Draw the groups as a heat map, and the blocks as bars below; PNG, SVG or PDF by suffix."""
    from compress.report.plots import heat

    values = np.array([[np.nan if r is None else value_of(r) for r in g.reached] for g in found.groups])
    what = "same answer" if found.original.top1 is None else "top-1"
    heat(
        values.reshape(len(found.groups), len(found.shares)),
        [f"{g.name}  {g.channels}" for g in found.groups],
        [f"{100 * share:.0f} %" for share in found.shares],
        path,
        title=f"{found.origin.network}: channels of one group gone",
        unit=f"{what}, %",
        bars=[(b.name, value_of(b.reached)) for b in found.blocks],
        level=value_of(found.original),
    )
