"""How long layers take on one device and runtime, as plain data: measured at a few widths, interpolated between."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Everything about a layer that its time hangs on, but its widths.

    `kind` is conv, depthwise or linear; `rows` the batch of a convolution, or the rows that a linear layer multiplies;
    `size` the height and width (and depth) of a convolution's input. `groups` is 1 but for grouped convolutions.
    """

    kind: str
    rows: int
    size: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1


# A layer: its shape, its input width, its output width.
Layer = tuple[LayerShape, int, int]


@dataclass(frozen=True, slots=True)
class Grid:
    """Seconds of one layer at rising input widths (rows) and output widths (columns), never falling with either."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    seconds: tuple[tuple[float, ...], ...]

    def at(self, inputs: int, outputs: int) -> float:
        """Return the seconds at these widths, bilinear between measured ones and constant beyond them.

        >>> grid = Grid((16, 32), (16, 32), ((1.0, 2.0), (2.0, 4.0)))
        >>> grid.at(16, 16), grid.at(24, 32), grid.at(8, 8)
        (1.0, 3.0, 1.0)
        """
        low, high, across = _between(self.inputs, inputs)
        left, right, along = _between(self.outputs, outputs)
        first = _mixed(self.seconds[low][left], self.seconds[low][right], along)
        second = _mixed(self.seconds[high][left], self.seconds[high][right], along)
        return _mixed(first, second, across)


def _between(points: Sequence[int], value: int) -> tuple[int, int, float]:
    """The places of the points around `value`, and how far it is from the first to the second."""
    right = min(bisect_left(points, value), len(points) - 1)
    left = max(right - 1, 0)
    if left == right or value >= points[right]:
        return right, right, 0.0
    return left, right, max(value - points[left], 0) / (points[right] - points[left])


def _mixed(first: float, second: float, share: float) -> float:
    return first + share * (second - first)


def rising(seconds: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """Return the grid with every value at least that of its narrower neighbours: noise must not make wide cheap.

    >>> rising([[1.0, 0.9], [0.8, 3.0]])
    ((1.0, 1.0), (1.0, 3.0))
    """
    found: list[list[float]] = []
    for i, row in enumerate(seconds):
        made: list[float] = []
        for j, value in enumerate(row):
            made.append(max(value, made[j - 1] if j else value, found[i - 1][j] if i else value))
        found.append(made)
    return tuple(map(tuple, found))


def whole(width: int, step: int) -> int:
    """Return the width that a width is computed as: the next multiple of the step; itself where it is below one.

    >>> whole(17, 16), whole(32, 16), whole(3, 16)
    (32, 32, 3)
    """
    return -(-width // step) * step if width > step else width


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Times of a network's layers on one device; `step` is the number of channels that the runtime computes at once.

    A width is computed as the next multiple of `step`, and costs what that costs.
    """

    step: int
    grids: Mapping[Layer, Grid]

    def seconds(self, layer: Layer, inputs: int, outputs: int) -> float | None:
        """Return what `layer` would take at other widths; None where it was not measured."""
        grid = self.grids.get(layer)
        return None if grid is None else grid.at(whole(inputs, self.step), whole(outputs, self.step))


@dataclass(frozen=True, slots=True)
class LatencyCosts:
    """What a network's latency is made of: layers of the table times `scale`, and everything else by its size.

    `per_mac` is seconds for each MAC of layers that the table does not hold, `per_element` seconds for each element
    that other operators make. With `whole`, the seconds that the original was measured to take at batch size `batch`,
    the parts add up to that.
    """

    table: LatencyTable
    whole: float
    scale: float
    per_mac: float
    per_element: float
    batch: int
