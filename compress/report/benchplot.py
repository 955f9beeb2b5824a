"""A benchmark as a picture: latency of every file in every setting, and accuracy against latency where it is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compress.core.errors import UsageError
from compress.measure.bench_results import BenchReport, Standing

SUFFIXES = (".svg", ".png", ".pdf")


def draw_bench(report: BenchReport, path: Path) -> None:
    """Draw bars of the median with a whisker to the 90th percentile, one panel a setting; the suffix is the format."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"no picture has the suffix {path.suffix!r}", fix=f"use one of {', '.join(SUFFIXES)}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from compress.report.plots import take_dollars_literally

    panels: dict[str, list[Standing]] = {}
    for standing in report.standings:
        title = f"{standing.backend}, {standing.device}, batch {standing.batch}, {standing.threads} threads"
        panels.setdefault(title, []).append(standing)
    known = [s for s in report.standings if s.accuracy is not None]
    heights = [1.0 + 0.4 * len(rows) for rows in panels.values()] + ([3.5] if known else [])
    figure = Figure(figsize=(8, sum(heights) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, rows) in zip(axes, panels.items(), strict=False):
        _bars(axis, title, rows)
    if known:
        _scatter(axes[-1], known)
    figure.suptitle(str(report.machine.get("cpu", "")), fontsize=9)
    take_dollars_literally(figure)
    figure.savefig(path, format=path.suffix.lower().lstrip("."))


def _bars(axis: object, title: str, rows: Sequence[Standing]) -> None:
    from typing import Any

    on: Any = axis
    middle = [1e3 * row.seconds.p50 for row in rows]
    whisker = [1e3 * (row.seconds.p90 - row.seconds.p50) for row in rows]
    on.barh(range(len(rows)), middle, xerr=[[0.0] * len(rows), whisker], color="#4477aa", ecolor="#555555", capsize=3)
    on.set_yticks(range(len(rows)), [row.label for row in rows])
    on.invert_yaxis()
    on.set_xlabel("ms a pass: median, whisker to the 90th percentile")
    on.set_title(title, fontsize=10)
    for at, row in enumerate(rows):
        on.annotate(
            "" if row.ratio is None else str(row.ratio),
            (0, at),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color="white",
            fontsize=8,
        )


def _scatter(axis: object, rows: Sequence[Standing]) -> None:
    from typing import Any

    on: Any = axis
    on.scatter([1e3 * row.seconds.p50 for row in rows], [100 * (row.accuracy or 0.0) for row in rows], color="#aa3377")
    for row in rows:
        at = (1e3 * row.seconds.p50, 100 * (row.accuracy or 0.0))
        on.annotate(row.label, at, xytext=(4, 4), textcoords="offset points", fontsize=8)
    on.set_xlabel("ms a pass, median")
    on.set_ylabel("top-1, %")
