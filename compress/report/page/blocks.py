"""What a page is made of: plain frozen blocks with every position already computed; templates only place them.

Positions and shares are fractions of the block's own width or height, in [0, 1], so that a page needs no script to fit
a phone or a sheet of paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Tile:
    """One headline figure; `better` tells whether the change is for the good, None where it is neither."""

    label: str
    before: str
    after: str
    change: str
    better: bool | None = None


@dataclass(frozen=True, slots=True)
class Tiles:
    """The headline."""

    kind: ClassVar[str] = "tiles"
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of a bar chart: two shares of the widest bar, what they stand for in words, and why they are so."""

    label: str
    before: float
    after: float
    text: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bars:
    """Before and after, a row each; the bar of what was before lies behind the other."""

    kind: ClassVar[str] = "bars"
    title: str
    rows: tuple[Bar, ...]
    legend: tuple[str, str] = ("before", "after")


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A value in a plot, with the words that hovering shows."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Series:
    """Values that belong together; `line` joins them."""

    name: str
    dots: tuple[Dot, ...]
    line: bool = True


@dataclass(frozen=True, slots=True)
class Plot:
    """Values against values, with both axes."""

    kind: ClassVar[str] = "plot"
    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table, and the number that it sorts by (None: by its text)."""

    text: str
    value: float | None = None
    shade: float | None = None  # how strongly the cell is coloured, in [0, 1]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that can be sorted by any column; shaded cells make it a heat map."""

    kind: ClassVar[str] = "table"
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    heat: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture inside the page: `source` is a data URI, `alt` the words that hovering shows."""

    title: str
    source: str
    alt: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """Small pictures in a grid."""

    kind: ClassVar[str] = "pictures"
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """Pairs of a name and a text."""

    kind: ClassVar[str] = "facts"
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Command:
    """A command to copy."""

    kind: ClassVar[str] = "command"
    text: str


Block = Tiles | Bars | Plot | Table | Pictures | Facts | Command


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks under one heading, with a sentence that says what is seen."""

    title: str
    lead: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Chapter:
    """All that is told of one run; `badge` is the one word that matters most."""

    key: str
    title: str
    subtitle: str
    badge: str
    sections: tuple[Section, ...]
    good: bool = True


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values with round ends.

    >>> axis = Axis.over([0.2, 9.7])
    >>> axis.low, axis.high, axis.place(5.0), [tick.text for tick in axis.ticks()]
    (0, 10, 0.5, ['0', '2', '4', '6', '8', '10'])
    """

    low: float
    high: float
    step: float

    @staticmethod
    def over(values: Iterable[float], steps: int = 5) -> Axis:
        """Return an axis that holds the finite values, with about `steps` steps of round size."""
        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        span = (high - low) or abs(high) or 1.0
        power = 10 ** math.floor(math.log10(span / steps))
        step = next(n * power for n in (1, 2, 2.5, 5, 10) if n * power >= span / steps * 0.999)
        first, last = math.floor(low / step), math.ceil(high / step)
        return Axis(first * step, (last if last > first else first + 1) * step, step)

    def place(self, value: float) -> float:
        """Return where the value lies, 0 at the low end and 1 at the high one."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> tuple[Tick, ...]:
        """Return a tick every step."""
        count = round((self.high - self.low) / self.step)
        values = [self.low + i * self.step for i in range(count + 1)]
        return tuple(Tick(i / count, f"{value:.6g}") for i, value in enumerate(values))


def plot(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[tuple[str, Sequence[tuple[float, float, str]]]],
    *,
    line: bool = True,
) -> Plot:
    """Place series of (x, y, words) between axes with round ends; values that are not finite are left out."""
    finite = [(name, [p for p in points if math.isfinite(p[0]) and math.isfinite(p[1])]) for name, points in series]
    x_axis = Axis.over(p[0] for _, points in finite for p in points)
    y_axis = Axis.over(p[1] for _, points in finite for p in points)
    placed = tuple(
        Series(name, tuple(Dot(x_axis.place(x), y_axis.place(y), text) for x, y, text in points), line)
        for name, points in finite
    )
    return Plot(title, x_label, y_label, x_axis.ticks(), y_axis.ticks(), placed)
