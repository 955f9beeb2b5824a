"""The groups of a network in the terminal: a table, a tree over its modules, totals, and why the rest has to stay."""

from __future__ import annotations

from collections.abc import Sequence, Set

from rich.box import SIMPLE_HEAD
from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from compress.report.inspection import GroupFacts, Inspection, LayerFacts, Spread
from compress.report.units import count, percentage

NAMES_SHOWN = 3
NAME_WIDTH = 32  # longer names of groups are folded
MACS_MEANT = (
    "MACs, parameters: what vanishes when all channels of the group leave. A layer between two groups vanishes with "
    "either and counts in both, so shares add up to more than 100 %. An ellipsis stands for the modules that the name "
    "shares with the group's."
)


def told(facts: Inspection, *, tree: bool = False) -> RenderableType:
    """Return all that is shown: the groups as a table or the layers as a tree, totals, and what stays and why."""
    parts: list[RenderableType] = [layers_tree(facts) if tree else groups_table(facts)]
    parts.append(Text(MACS_MEANT, "dim"))
    parts.append(Text("\n".join(_totals(facts))))
    if facts.causes:
        parts.append(_causes(facts))
    parts += [Text(line, "yellow") for line in _odd(facts)]
    return Stack(*parts)


def groups_table(facts: Inspection) -> Table:
    """Return the groups as a table, a row each; groups that no layer makes are left out."""
    table = Table(title=Text(facts.network), title_justify="left", title_style="bold", header_style="bold")
    table.box, table.padding = SIMPLE_HEAD, (0, 1, 0, 0)
    longest = max((len(row.group.name) for row in facts.made), default=0)
    longest = max((len(row.group.name) for row in facts.made), default=0)
    table.add_column("group", overflow="fold", no_wrap=longest <= NAME_WIDTH)
    for name in ("channels", "MACs", "share", "parameters"):
        table.add_column(name, justify="right", no_wrap=True)
    if facts.importance is not None:
        table.add_column(f"{facts.importance}: min, median, max", justify="right", no_wrap=True)
    table.add_column("free", no_wrap=True)
    table.add_column("with, read by; why it stays", overflow="fold")
    kernels = {layer.name for layer in facts.layers if layer.kernel}
    for row in facts.made:
        spread = [_spread(row.spread)] if facts.importance is not None else []
        table.add_row(
            Text(row.group.name, "bold"),
            str(row.group.size),
            count(row.macs),
            _share(row.macs, facts.macs),
            count(row.parameters),
            *spread,
            Text("yes", "green") if row.group.prunable else Text("no", "yellow"),
            _inside(row, kernels),
        )
    return table


def _inside(row: GroupFacts, kernels: Set[str]) -> Text:
    """Name the other layers that make the channels and those that read them; norms that come with a kernel are not."""
    made = [name for name in row.made if name in kernels and name != row.group.name]
    sides = (("with ", made), ("read by ", row.read))
    lines = [Text(word, "dim").append(_listed(names, row.group.name), "default") for word, names in sides if names]
    return Text("\n").join([*lines, *(Text(f"stays: {reason}", "yellow") for reason in row.group.pinned)])


def layers_tree(facts: Inspection) -> Tree:
    """Return every layer under the modules that hold it, with the group that its output belongs to."""
    root = Tree(Text(facts.network, "bold"))
    branches: dict[str, Tree] = {"": root}
    for layer in facts.layers:
        path = layer.name.split(".")
        for depth in range(1, len(path)):
            here = ".".join(path[:depth])
            if here not in branches:
                branches[here] = branches[".".join(path[: depth - 1])].add(Text(path[depth - 1], "bold"))
        branches[".".join(path[:-1])].add(_leaf(facts, layer, path[-1]))
    return root


def _leaf(facts: Inspection, layer: LayerFacts, name: str) -> Text:
    text = Text(name, "bold" if layer.kernel else "")
    text.append(f" {' x '.join(map(str, layer.shape))}", "dim")
    if not layer.makes:
        return text.append(" makes no channels", "dim")
    several = len(layer.makes) > 1
    for number, (i, indices) in enumerate(layer.makes):
        if number == NAMES_SHOWN:
            return text.append(f"\n  and {len(layer.makes) - NAMES_SHOWN} more groups")
        row = facts.groups[i]
        text.append("\n  " if several else " ")
        text.append(f"-> {row.group.name}", "cyan")
        held = f"{indices} of " if several else ""
        text.append(f", {held}{_channels(row.group.size)}, {_share(row.macs, facts.macs)} of the MACs: ")
        stays = "; ".join(map(str, row.group.pinned))
        text.append(
            "may leave" if row.group.prunable else f"stays, {stays}", "green" if row.group.prunable else "yellow"
        )
    return text


def _channels(number: int) -> str:
    return f"{number} channel{'' if number == 1 else 's'}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _spread(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.low:.2g}  {spread.middle:.2g}  {spread.high:.2g}"


def _listed(names: Sequence[str], beside: str = "") -> str:
    """List names; the modules that a name shares with `beside` are an ellipsis.

    >>> _listed(["layer1.0.conv2", "layer2.0.conv1", "fc"], "layer1.0.conv1")
    '….conv2, layer2.0.conv1, fc'
    """
    shown = NAMES_SHOWN if len(names) > NAMES_SHOWN + 1 else len(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(_beside(name.split("."), beside.split(".")) for name in names[:shown]) + more


def _beside(name: Sequence[str], other: Sequence[str]) -> str:
    same = next((i for i, (a, b) in enumerate(zip(name[:-1], other, strict=False)) if a != b), len(other))
    same = min(same, len(name) - 1)
    return ".".join(["…", *name[same:]] if same else name)


def _totals(facts: Inspection) -> list[str]:
    free, every = facts.outputs
    share = f": {free:,} of the layers' {every:,} output channels, {percentage(free / every)}" if every else ""
    lines = [
        f"{facts.channels:,} channels may leave, in {len(facts.free)} of {len(facts.made)} groups{share}",
        f"{count(facts.macs)} MACs for one input, {count(facts.parameters)} parameters",
    ]
    inputs = sum(row.group.size for row in facts.groups if row.read and not row.made)
    return [*lines, f"not shown: {_channels(inputs)} that no layer makes (the network's input)"] if inputs else lines


def _causes(facts: Inspection) -> Table:
    table = Table(title="what stays", title_justify="left", title_style="bold", header_style="bold")
    table.box, table.padding = SIMPLE_HEAD, (0, 1, 0, 0)
    table.add_column("because", overflow="fold")
    for name in ("groups", "channels", "output channels"):
        table.add_column(name, justify="right")
    table.add_column("first at", overflow="fold")
    for cause in facts.causes:
        numbers = (f"{cause.groups:,}", f"{cause.channels:,}", f"{cause.outputs:,}")
        table.add_row(Text(cause.why), *numbers, Text(f"{cause.operator} {cause.first}".strip()))
    return table


def _odd(facts: Inspection) -> list[str]:
    lines = [f"{name} has no rule: what it touches stays (first in {where})" for name, where in facts.unknown.items()]
    if facts.unread:
        number = count(sum(facts.unread.values()))
        lines.append(f"no forward pass reads {number} parameters, which stay: {_listed(list(facts.unread))}")
    if facts.unjudged:
        number = f"{len(facts.unjudged)} group{'' if len(facts.unjudged) == 1 else 's'}"
        lines.append(f"importance {facts.importance!r} cannot judge {number}: {_listed(facts.unjudged)}")
    return [*lines, *facts.remarks]
