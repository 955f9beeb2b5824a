"""Plots of the commands that explore: lines, a heat map, a grid of pictures. PNG, SVG or PDF by suffix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter

from compress.core.files import written_whole

COLOURS = ("#1f6feb", "#d1442f", "#2a8f5b", "#8250df", "#b7791f", "#0f8b8d", "#6b7280", "#c2255c")
GREY = "#6b7280"
MAP = "RdYlGn"


def save(figure: Figure, path: Path) -> None:
    """Write the figure whole or not at all; equal figures give equal files, and names may hold dollars."""
    take_dollars_literally(figure)
    kind = path.suffix.removeprefix(".").lower()
    with rc_context({"svg.hashsalt": "compress", "svg.fonttype": "path"}), written_whole(path) as temporary:
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(temporary, format=kind, dpi=150, metadata=metadata, bbox_inches="tight")


def take_dollars_literally(figure: Figure) -> None:
    """Show every text as it stands, since the names of layers and files may hold dollars, which are no formulas there.

    The powers that matplotlib itself writes beside a logarithmic axis stay formulas.
    """
    every = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    powers = [axis for axis in every if isinstance(axis.get_major_formatter(), LogFormatter)]
    formulas = {text for axis in powers for text in axis.get_ticklabels(which="both")}
    for text in set(figure.findobj(Text)) - formulas:
        text.set_parse_math(False)


def curves(
    lines: Mapping[str, Sequence[tuple[int, float]]], original: float, path: Path, *, title: str, x: str, y: str
) -> None:
    """Draw lines of (number, fraction in [0, 1]) by name, beside the original's level."""
    figure = Figure(figsize=(7.2, 4.4))
    axes = figure.add_subplot()
    axes.axhline(100 * original, color=GREY, linewidth=1, linestyle="--", label=f"original, {100 * original:.2f} %")
    for (name, points), colour in zip(lines.items(), _cycled(len(lines)), strict=True):
        ks, values = zip(*points, strict=True)
        mark = "o" if len(points) <= 40 else ""
        axes.plot(ks, [100 * v for v in values], color=colour, linewidth=1.8, marker=mark, markersize=3.5, label=name)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(f"{y}, %", fontsize=9)
    _plain(axes)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def _cycled(number: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(number)]


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_axisbelow(True)


def heat(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    path: Path,
    *,
    title: str,
    unit: str,
    bars: Sequence[tuple[str, float]] = (),
    level: float = 0.0,
) -> None:
    """Draw a table (rows, columns) of fractions as colours with the figures in them, NaN as grey.

    `bars` are named fractions that are drawn below, one scale for both; `level` marks the original's on them.
    """
    longest = max((len(name) for name in (*rows, *(name for name, _ in bars))), default=0)
    heights = [0.28 * max(len(rows), 1), *([0.28 * len(bars) + 0.1] if bars else [])]
    figure = Figure(figsize=(2.6 + 0.55 * len(columns) + 0.06 * longest, 1.6 + sum(heights)))
    places = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights).ravel()
    every = [*values[np.isfinite(values)].tolist(), *(value for _, value in bars), level]
    scale = (100 * min(every), 100 * max(every) + 1e-9)
    drawn = _table(places[0], 100 * values, rows, columns, scale)
    places[0].set_title(title, loc="left", fontsize=11, fontweight="bold")
    if bars:
        _bars(places[1], bars, level, scale)
    figure.colorbar(drawn, ax=list(places), label=unit, aspect=30)
    save(figure, path)


def _table(
    axes: Any, percents: np.ndarray, rows: Sequence[str], columns: Sequence[str], scale: tuple[float, float]
) -> Any:
    colours = colormaps[MAP].with_extremes(bad="#d1d5db")
    drawn = axes.imshow(np.ma.masked_invalid(percents), aspect="auto", cmap=colours, vmin=scale[0], vmax=scale[1])
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.tick_params(length=0)
    for (row, column), value in np.ndenumerate(percents):
        if math.isfinite(value):
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7)
    return drawn


def _bars(axes: Any, bars: Sequence[tuple[str, float]], level: float, scale: tuple[float, float]) -> None:
    names, values = zip(*bars, strict=True)
    places = range(len(bars))
    span = max(scale[1] - scale[0], 1e-9)
    shades = [colormaps[MAP]((100 * v - scale[0]) / span) for v in values]
    axes.barh(places, [100 * v for v in values], color=shades, height=0.7)
    axes.axvline(100 * level, color=GREY, linewidth=1, linestyle="--")
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, max(100.0, scale[1]))
    axes.set_title("residual blocks reduced to their shortcuts", loc="left", fontsize=9)
    for place, value in zip(places, values, strict=True):
        axes.text(1, place, f"{100 * value:.2f}", va="center", fontsize=7)
    _plain(axes)


def grid(maps: np.ndarray, names: Sequence[str], path: Path, *, title: str, unit: str) -> None:
    """Draw pictures (number, H, W) in a grid with one colour scale, each under its name."""
    count = len(maps)
    across = max(math.ceil(math.sqrt(count)), 1)
    down = max(math.ceil(count / across), 1)
    width, height = 1.0 * across + 1.2, 1.15 * down + 0.5
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(0.1 / width, 0.1 / height, 1 - 1.1 / width, 1 - 0.6 / height, 0.08, 0.22)
    every = figure.subplots(down, across, squeeze=False).ravel()
    low, high = (float(maps.min()), float(maps.max())) if count else (0.0, 1.0)
    drawn = None
    for axes in every:
        axes.set_axis_off()
    for axes, picture, name in zip(every, maps, names, strict=False):
        drawn = axes.imshow(picture, cmap="magma", vmin=low, vmax=max(high, low + 1e-12), interpolation="nearest")
        axes.set_title(name, fontsize=6, pad=2)
    figure.text(0.1 / width, 1 - 0.2 / height, title, fontsize=11, fontweight="bold", va="center")
    if drawn is not None:
        box = (1 - 0.95 / width, 0.15, 0.15 / width, 0.7)
        figure.colorbar(drawn, cax=figure.add_axes(box), label=unit)
    save(figure, path)
