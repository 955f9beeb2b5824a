"""The groups of a network as a table: what could leave, and why the rest has to stay."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from compress.core.types import Group

NAMES_SHOWN = 4


def groups_table(name: str, groups: Sequence[Group], unknown: Mapping[str, str]) -> RenderableType:
    """Return the groups as a table with a summary; `unknown` maps operators without a rule to where they occur."""
    table = Table(title=Text(name), title_justify="left", title_style="bold", header_style="bold")
    table.add_column("group", overflow="fold")
    table.add_column("channels", justify="right")
    table.add_column("computed by", overflow="fold")
    table.add_column("read by", overflow="fold")
    table.add_column("may leave", overflow="fold")
    for group in groups:
        verdict = Text("yes", "green") if group.prunable else Text("no: " + "; ".join(map(str, group.pinned)), "yellow")
        table.add_row(Text(group.name), str(group.size), *_names(group), verdict)
    lines = [f"{operator} has no rule: what it touches stays (first in {where})" for operator, where in unknown.items()]
    return Stack(table, Text("\n".join([_summary(groups), *lines])))


def groups_json(name: str, groups: Sequence[Group], unknown: Mapping[str, str]) -> str:
    """Return the groups as a JSON text that ends in a newline; sizes are in channels."""
    rows: list[dict[str, Any]] = [
        {
            "name": group.name,
            "channels": group.size,
            "prunable": group.prunable,
            "pinned": [str(reason) for reason in group.pinned],
            "members": [{"parameter": m.parameter, "dim": m.dim, "produces": m.produces} for m in group.members],
        }
        for group in groups
    ]
    report = {
        "format": "compress-groups-1",
        "network": name,
        "channels": sum(row["channels"] for row in rows),
        "prunable": sum(row["channels"] for row in rows if row["prunable"]),
        "unknown_operators": dict(unknown),
        "groups": rows,
    }
    return json.dumps(report, indent=2) + "\n"


def _names(group: Group) -> tuple[Text, Text]:
    made = [m.parameter for m in group.members if m.produces]
    read = [m.parameter for m in group.members if not m.produces]
    return _listed(made), _listed(read)


def _listed(names: Sequence[str]) -> Text:
    """List the modules whose parameters `names` are."""
    distinct = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    more = [f"and {len(distinct) - NAMES_SHOWN} more"] if len(distinct) > NAMES_SHOWN else []
    return Text("\n".join([*distinct[:NAMES_SHOWN], *more]))


def _summary(groups: Sequence[Group]) -> str:
    free = [group for group in groups if group.prunable]
    channels, total = sum(group.size for group in free), sum(group.size for group in groups)
    return f"{channels} of {total} channels may leave, in {len(free)} of {len(groups)} groups"
