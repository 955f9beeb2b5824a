"""The coupling of a network as one picture: a row for every layer, a column for every group of channels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from compress.report.coupling import FREE, STAYS
from compress.report.inspection import GroupFacts, Inspection, LayerFacts
from compress.report.plots import take_dollars_literally

CELL = 0.2  # inches a row and a column
FONT = 7.0  # points; a line of text fits into a cell
CHARACTER = 0.056  # inches a character of that font is wide, at most
HEAD = 1.3  # inches for title and legend


@dataclass(frozen=True, slots=True)
class Matrix:
    """What is drawn: `makes` and `reads` are (row, column) of marks."""

    rows: tuple[LayerFacts, ...]
    columns: tuple[GroupFacts, ...]
    makes: tuple[tuple[int, int], ...]
    reads: tuple[tuple[int, int], ...]


def matrix(facts: Inspection) -> Matrix:
    """Choose rows and columns.

    Rows are the layers in network order; norms and other layers without a kernel are left out unless nothing else makes
    some group's channels. Columns are the groups, in the order of the first row that makes them.
    """
    kernels = {layer.name for layer in facts.layers if layer.kernel}
    sole = {name for row in facts.made if not kernels.intersection(row.made) for name in row.made[:1]}
    rows = tuple(layer for layer in facts.layers if layer.name in kernels | sole)
    made = {row.group.name for row in facts.made}
    shown = {i for i, row in enumerate(facts.groups) if row.group.name in made}
    first: dict[int, int] = {}
    for layer in rows:
        for i, _ in layer.makes:
            if i in shown:
                first.setdefault(i, len(first))
    return Matrix(
        rows,
        tuple(facts.groups[i] for i in first),
        tuple((r, first[i]) for r, layer in enumerate(rows) for i, _ in layer.makes if i in first),
        tuple((r, first[i]) for r, layer in enumerate(rows) for i, _ in layer.reads if i in first),
    )


def figure(facts: Inspection) -> Figure:
    """Draw the coupling: a filled mark where a layer makes a group's channels, a ring where it reads them."""
    drawn = matrix(facts)
    rows, columns = len(drawn.rows), len(drawn.columns)
    names = [_row_name(layer) for layer in drawn.rows]
    heads = [f"{row.group.name}  {row.group.size}" for row in drawn.columns]
    left, top = _room(names), _room(heads)
    width, height = max(left + CELL * (columns + 1) + 0.3, 5.0), top + CELL * (rows + 1) + HEAD
    made = Figure(figsize=(width, height))
    axes = made.add_axes((left / width, 0.1 / height, CELL * (columns + 1) / width, CELL * (rows + 1) / height))
    colours = [FREE if row.group.prunable else STAYS for row in drawn.columns]
    _frame(axes, rows, columns)
    _spans(axes, drawn, colours)
    _marks(axes, drawn.makes, colours, filled=True)
    _marks(axes, drawn.reads, colours, filled=False)
    axes.set_yticks(range(rows), names, fontsize=FONT)
    axes.set_xticks(range(columns), heads, fontsize=FONT, rotation=90)
    for label, colour in zip(axes.get_xticklabels(), colours, strict=True):
        label.set_color(colour)
    _title(made, facts, width, height)
    take_dollars_literally(made)
    return made


def _row_name(layer: LayerFacts) -> str:
    return f"{layer.name}  {' x '.join(map(str, layer.shape))}"


def _room(names: list[str]) -> float:
    """Inches that the longest of the names needs."""
    return CHARACTER * max(map(len, names), default=0) + 0.25


def _frame(axes: Any, rows: int, columns: int) -> None:
    axes.set_xlim(-0.75, columns - 0.25)
    axes.set_ylim(rows - 0.25, -0.75)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_axisbelow(True)
    for row in range(0, rows, 2):
        axes.axhspan(row - 0.5, row + 0.5, color="#f4f4f4", linewidth=0, zorder=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _spans(axes: Any, drawn: Matrix, colours: list[str]) -> None:
    """Join the marks of every column, so that the eye finds them."""
    touched: dict[int, list[int]] = {}
    for row, column in (*drawn.makes, *drawn.reads):
        touched.setdefault(column, []).append(row)
    low, high = [min(held) for held in touched.values()], [max(held) for held in touched.values()]
    axes.vlines(list(touched), low, high, colors=[colours[c] for c in touched], linewidth=0.8, alpha=0.35, zorder=1)


def _marks(axes: Any, places: tuple[tuple[int, int], ...], colours: list[str], *, filled: bool) -> None:
    edge = [colours[column] for _, column in places]
    face = edge if filled else ["white"] * len(places)
    size = 42 if filled else 26
    axes.scatter(
        [c for _, c in places], [r for r, _ in places], s=size, c=face, edgecolors=edge, linewidths=1.2,
        zorder=2 if filled else 3,
    )  # fmt: skip


def _title(made: Figure, facts: Inspection, width: float, height: float) -> None:
    free, every = facts.outputs
    share = f", {100 * free / every:.1f} % of the layers' output channels" if every else ""
    made.text(0.15 / width, 1 - 0.25 / height, facts.network, fontsize=11, fontweight="bold", va="center")
    text = f"{facts.channels:,} channels may leave{share}"
    made.text(0.15 / width, 1 - 0.48 / height, text, fontsize=8, va="center")
    handles = [
        Line2D([], [], marker="o", linestyle="", markersize=6, color="#555555", label="makes the channels"),
        Line2D(
            [], [], marker="o", linestyle="", markersize=5, color="#555555", markerfacecolor="white", label="reads them"
        ),
        Line2D([], [], linewidth=4, color=FREE, label="may leave"),
        Line2D([], [], linewidth=4, color=STAYS, label="stays"),
    ]
    anchor = (0.08 / width, 1 - 0.58 / height)
    made.legend(handles=handles, loc="upper left", bbox_to_anchor=anchor, ncols=2, fontsize=8, frameon=False)


def draw(facts: Inspection, path: Path, kind: str = "svg") -> None:
    """Write the picture; equal networks give equal files, and the svg needs no font of the reader's machine."""
    with rc_context({"svg.hashsalt": "compress", "svg.fonttype": "path"}):
        figure(facts).savefig(path, format=kind, metadata={"Date": None} if kind == "svg" else None, dpi=100)
