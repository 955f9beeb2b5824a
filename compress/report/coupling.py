"""The coupling of a network as graphviz text: layers and groups, who makes whose channels and who reads them."""

from __future__ import annotations

from compress.report.inspection import Inspection
from compress.report.units import count

FREE, STAYS = "#2a7f9e", "#d9822b"  # also apart in grey and for the colour-blind


def dot(facts: Inspection) -> str:
    """Return a digraph: an edge layer -> group makes channels, a dashed edge group -> layer reads them.

    Nodes are numbered, so that no name of a module can break the text; `dot -Tsvg` draws it.
    """
    lines = [
        "digraph coupling {",
        f"  label={_quoted(facts.network)}; labelloc=t; rankdir=TB;",
        '  node [fontname="Helvetica", fontsize=10]; edge [color="#555555"];',
    ]
    for i, row in enumerate(facts.groups):
        group = row.group
        colour = FREE if group.prunable else STAYS
        text = f"{group.name}\n{group.size} channels, {count(row.macs)} MACs"
        stays = "\n".join(map(str, group.pinned)) or "may leave"
        lines.append(
            f"  g{i} [shape=ellipse, style=filled, fontcolor=white, fillcolor={_quoted(colour)}, "
            f"label={_quoted(text)}, tooltip={_quoted(stays)}];"
        )
    for i, layer in enumerate(facts.layers):
        shape = " x ".join(map(str, layer.shape))
        lines.append(f"  l{i} [shape=box, label={_quoted(layer.name + chr(10) + shape)}];")
        lines += [f"  l{i} -> g{j};" for j, _ in layer.makes]
        lines += [f"  g{j} -> l{i} [style=dashed];" for j, _ in layer.reads]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    r"""Return a graphviz string.

    >>> print(_quoted('a "b"\nc'))
    "a \"b\"\nc"
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
