"""What a network costs as channels leave: an extent is a count of live channels, a cost a function of extents.

What a block saves shrinks as its neighbours shrink (a convolution costs inputs x outputs), so savings are asked for
again when they are needed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from compress.graph.analyse import Analysis
from compress.graph.costs import batch_of, macs_by_op, macs_of
from compress.graph.couplings import operands
from compress.graph.trace import Op

Shapes = Callable[[int], tuple[int, ...]]
Extents = Iterable[tuple[int, np.ndarray]]


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that costs something: the values whose shapes the cost hangs on, and the cost as their function."""

    values: tuple[int, ...]
    cost: Callable[[Shapes], int]


class Meter:
    """Costs of a network as channels leave. `total` is what is left now, summed over the items, `per` inputs."""

    def __init__(
        self,
        analysis: Analysis,
        items: Sequence[Item],
        shape: Shapes,
        extents: Callable[[int], Extents],
        *,
        per: int = 1,
    ) -> None:
        """Count every labelled extent once; `extents` gives (dimension, labels) of a value."""
        self.items, self.per = list(items), per
        self.shapes: dict[int, list[int]] = {}
        self.places: dict[int, list[tuple[int, int, int]]] = defaultdict(list)  # channel -> (value, dimension, times)
        self.readers: dict[int, list[int]] = defaultdict(list)  # value -> items
        for number, item in enumerate(self.items):
            for value in item.values:
                self.readers[value].append(number)
                if value in self.shapes:
                    continue
                self.shapes[value] = list(shape(value))
                for dim, labels in extents(value):
                    channels, times = np.unique(analysis.component[labels], return_counts=True)
                    for channel, count in zip(channels.tolist(), times.tolist(), strict=True):
                        self.places[channel].append((value, dim, count))
        self.costs = [item.cost(self._shape) for item in self.items]
        self.total = sum(self.costs)

    def _shape(self, value: int) -> tuple[int, ...]:
        return tuple(self.shapes[value])

    def remove(self, channels: np.ndarray) -> int:
        """Let the channels leave; return what this saves."""
        return self._change(channels, -1)

    def put_back(self, channels: np.ndarray) -> int:
        """Undo `remove`; return what comes back."""
        return -self._change(channels, 1)

    def _change(self, channels: np.ndarray, sign: int) -> int:
        touched: set[int] = set()
        for channel in channels.tolist():
            for value, dim, count in self.places[channel]:
                self.shapes[value][dim] += sign * count
                touched.update(self.readers[value])
        saved = 0
        for number in touched:
            new = self.items[number].cost(self._shape)
            saved += self.costs[number] - new
            self.costs[number] = new
        self.total -= saved
        return saved

    def saving(self, channels: np.ndarray) -> int:
        """What would be saved if the channels left now."""
        saved = self.remove(channels)
        self.put_back(channels)
        return saved

    def returning(self, channels: np.ndarray) -> int:
        """What would come back if the channels, which have left, came back now."""
        cost = self.put_back(channels)
        self.remove(channels)
        return cost


def macs_meter(analysis: Analysis) -> Meter:
    """MACs of the traced batch."""
    recorded, layouts = analysis.traces[0], analysis.layouts[0]

    def item(op: Op) -> Item:
        return Item(tuple({*operands(op), *op.outs}), lambda shape: macs_of(op, shape))

    def extents(value: int) -> Extents:
        return [(dims[0], labels) for dims, labels in layouts.get(value, ()) if len(dims) == 1]

    items = [item(op) for op, _ in macs_by_op(recorded)]
    return Meter(analysis, items, recorded.shapes.__getitem__, extents, per=batch_of(recorded))


def tensor_meter(analysis: Analysis, names: Sequence[str], weigh: Callable[[str], int]) -> Meter:
    """Elements of the named tensors, each times what `weigh` says of its tensor."""

    def item(number: int, name: str) -> Item:
        each = weigh(name)
        return Item((number,), lambda shape: math.prod(shape(number)) * each)

    def extents(number: int) -> Extents:
        labels = enumerate(analysis.parameters[names[number]])
        return [(dim, array) for dim, array in labels if array is not None]

    items = [item(number, name) for number, name in enumerate(names)]
    return Meter(analysis, items, lambda number: analysis.shapes[names[number]], extents)


def params_meter(analysis: Analysis) -> Meter:
    """Parameters: elements of everything that is learned."""
    names = [name for name, tensor in analysis.tensors.items() if isinstance(tensor, nn.Parameter)]
    return tensor_meter(analysis, names, lambda _: 1)


def bytes_meter(analysis: Analysis) -> Meter:
    """Bytes of the tensors that a forward pass reads: what a file of the network has to hold of them."""
    names = list(analysis.traces[0].parameters)
    return tensor_meter(analysis, names, lambda name: analysis.tensors[name].element_size())
