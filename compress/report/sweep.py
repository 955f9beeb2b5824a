"""What a sweep found: a point for every number of channels removed; as table, as JSON and as a plot."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from compress.evaluation.variants import Costing, Precision, Tally
from compress.report.exploring import Variants, facts, measured
from compress.report.units import duration, percentage
from compress.surgery.verify import TOLERANCE

ROWS = 24  # of the table in the terminal; the JSON file holds every point


@dataclass(frozen=True, slots=True)
class Point:
    """So many channels removed by one criterion, and what is left then; `shape` is that of the layer's weight."""

    removed: int
    shape: tuple[int, ...]
    reached: Tally


@dataclass(frozen=True, slots=True)
class Curve:
    """The points of one criterion; `order` are all channels, the first to leave first."""

    importance: str
    formula: str
    order: tuple[int, ...]
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep(Variants):
    """What a sweep found. `what` says in words what leaves."""

    layer: str
    what: str
    mode: str
    channels: int
    curves: tuple[Curve, ...]
    max_relative_error: float

    @property
    def points(self) -> int:
        """Number of networks that were measured."""
        return sum(len(c.points) for c in self.curves)

    @property
    def share(self) -> float:
        """What the sweep took, preparation included, of what as many evaluations of the whole network would take."""
        full = self.costing.full * self.points
        return (self.prepared + self.costing.total) / full if full else float("inf")


def tree(found: Sweep) -> dict[str, Any]:
    """The figures of a sweep as they stand in the JSON file."""
    return {
        "layer": found.layer,
        "what": found.what,
        "mode": found.mode,
        "channels": found.channels,
        "exactness": {"max_relative_error": found.max_relative_error, "tolerance": TOLERANCE},
        "curves": [asdict(c) for c in found.curves],
        "share_of_full": found.share,
        **measured(found, found.points),
    }


def told(found: Sweep) -> RenderableType:
    """Return the sweep as something rich can print: the table, then what it took."""
    table = Table(header_style="bold")
    table.add_column("removed", justify="right")
    table.add_column("weight", justify="right")
    for curve in found.curves:
        table.add_column(f"{measure_of(found)}, {curve.importance}", justify="right")
    table.add_row("0", "", *(percentage(value_of(found.original)) for _ in found.curves))
    counts = [p.removed for p in found.curves[0].points]
    step = -(-len(counts) // ROWS)
    shown = sorted({*range(0, len(counts), step), len(counts) - 1})
    for i in shown:
        point = found.curves[0].points[i]
        shape = " x ".join(map(str, point.shape))
        table.add_row(str(counts[i]), shape, *(percentage(value_of(c.points[i].reached)) for c in found.curves))
    rows = [
        ("removed", found.what),
        ("ranked on", found.ranked_on),
        ("exactness", f"cut against masked, float64: {found.max_relative_error:.1e}, allowed {TOLERANCE:.0e}"),
        ("took", took(found.points, found.costing, found.prepared)),
        ("arithmetic", arithmetic(found.precision)),
    ]
    if len(shown) < len(counts):
        rows.append(("", f"{len(shown)} of {len(counts)} points are shown; --json holds them all"))
    title = f"{found.origin.network}: {found.layer}, {found.channels} channels"
    parts = (found.images, found.asked)
    return Group(Text(title, "bold"), table, facts(found.origin, parts, rows, found.notes, complete=found.complete))


def measure_of(found: Sweep) -> str:
    """What is shown: top-1 accuracy, or without labels how often the answer is the original's."""
    return "same answer" if found.original.top1 is None else "top-1"


def value_of(reached: Tally) -> float:
    """The figure that is shown, a fraction."""
    return reached.agreement if reached.top1 is None else reached.top1


def took(points: int, costing: Costing, prepared: float) -> str:
    """What the measurement took beside what as many whole evaluations would have taken."""
    whole = costing.full * points
    actual = prepared + costing.total
    share = f", {actual / whole:.3f} of it" if whole else ""
    operators = costing.computed + costing.skipped
    return (
        f"{duration(actual)} for {points} networks ({duration(prepared)} of it to make them); one full evaluation "
        f"{duration(costing.full)} x {points} = {duration(whole)}{share}; "
        f"{costing.skipped:,} of {operators:,} operators were not computed again"
    )


def arithmetic(found: Precision) -> str:
    """In which type of number the networks were computed, and how the answers were kept those of float32."""
    if not found.narrow:
        return f"float32: {found.reason}" if found.reason else "float32"
    return (
        f"bfloat16 behind the operators that are shared ({found.reason}); {found.again:,} of {found.answers:,} answers "
        f"whose lead was below {100 * found.bound:.2g} % of the outputs' spread are float32's; of {found.checked:,} "
        f"computed in both, {found.differing} differ, outputs by up to {100 * found.largest:.2g} % of the spread, the "
        f"mean loss by up to {found.loss:.2g}"
    )


def draw(found: Sweep, path: Path) -> None:
    """Plot accuracy against channels removed, a line for every criterion; PNG, SVG or PDF by suffix."""
    from compress.report.plots import curves

    lines = {c.importance: [(p.removed, value_of(p.reached)) for p in c.points] for c in found.curves}
    curves(
        lines,
        value_of(found.original),
        path,
        title=f"{found.origin.network}: {found.layer}",
        x=f"channels removed of {found.channels}",
        y=f"{measure_of(found)}, {found.images:,} images of {found.origin.data}",
    )
