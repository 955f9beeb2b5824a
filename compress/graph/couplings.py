"""One label per index of every tensor; which labels leave together (tie) and which must stay (pin).

A tensor's labels are *blocks*: a block is a set of dimensions and an int64 array over them, one label per index.
Label 0 is fixed. Dimensions in no block are fixed throughout. Nearly every block has one dimension; a block of several
appears where a view splits labelled channels ((heads * width) -> heads, width), and lives until an operator needs one
of its dimensions for itself: then that operator decides which dimension carries the labels, and ties over the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from compress.core.choosing import Attention
from compress.graph.trace import Op, Ref, Trace

FIXED_PARTNER = "meets a channel that is fixed, of the network's input for example"
Block = tuple[tuple[int, ...], np.ndarray]
Layout = tuple[Block, ...]


@dataclass(slots=True)
class Pin:
    """Labels that stay, and why: the operator's name, its place, and a reason in words."""

    labels: np.ndarray
    why: str
    op: Op | None

    def __str__(self) -> str:
        """The reason and its place, in words."""
        return self.why if self.op is None else f"{self.why}, {self.op.name} at {self.op.where}"


@dataclass(slots=True)
class Couplings:
    """Collects ties and pins while rules run over a trace. Values are numbered as in the trace.

    `runs` holds the label arrays that were given out by id: a tie of two of these is one step, however long they are.
    `numbers[v]` are the labels that the contents of value v count (where a maximum was), which stay if it is read.
    """

    attention: Attention
    shapes: list[tuple[int, ...]]
    constants: Mapping[int, object] = field(default_factory=dict)
    layouts: dict[int, Layout] = field(default_factory=dict)
    const: set[int] = field(default_factory=set)
    ties: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    pins: list[Pin] = field(default_factory=list)
    splits: list[np.ndarray] = field(default_factory=list)
    runs: dict[int, np.ndarray] = field(default_factory=dict)
    consumed: list[np.ndarray] = field(default_factory=list)
    extents: list[np.ndarray] = field(default_factory=list)
    maps: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    statistics: list[Op] = field(default_factory=list)
    chosen: dict[int, tuple[Tensor, np.ndarray]] = field(default_factory=dict)
    makers: dict[int, Op] = field(default_factory=dict)
    looked_at: set[int] = field(default_factory=set)
    numbers: dict[int, list[np.ndarray]] = field(default_factory=dict)
    count: int = 1
    parameter_labels: int = 1
    op: Op | None = None
    training: bool = False

    # -- reading -----------------------------------------------------------------------------------------------------

    def shape(self, value: int) -> tuple[int, ...]:
        """Shape of the value."""
        return self.shapes[value]

    def layout(self, value: int) -> Layout:
        """Blocks of the value; empty where everything is fixed."""
        return self.layouts.get(value, ())

    def block(self, value: int, dim: int) -> Block | None:
        """Return the block that dimension `dim` belongs to, or None where it is fixed."""
        for found in self.layouts.get(value, ()):
            if dim in found[0]:
                return found
        return None

    def labels(self, value: int, dim: int) -> np.ndarray | None:
        """Labels along `dim` alone; None where it is fixed. A block of several dimensions is first given to `dim`."""
        found = self.block(value, dim)
        if found is None:
            return None
        if len(found[0]) > 1:
            for other in found[0]:
                if other != dim:
                    self.fix(value, other, "")
            found = self.block(value, dim)
        return None if found is None else found[1]

    def is_parameter(self, labels: np.ndarray) -> bool:
        """Whether the labels come from a parameter, not from a tensor that the network made."""
        return bool((labels < self.parameter_labels).all() and labels.any())

    # -- writing -----------------------------------------------------------------------------------------------------

    def fresh(self, size: int) -> np.ndarray:
        """`size` new labels."""
        start = self.count
        self.count += size
        made = np.arange(start, self.count)
        if size:
            self.runs[id(made)] = made
        return made

    def set(self, value: int, blocks: Iterable[Block]) -> None:
        """Give the value its blocks; dimensions along which a block does not vary leave it."""
        if type(blocks) is tuple:  # another value's layout: it was looked through when that was given
            self.layouts[value] = blocks
            return
        given = list(blocks)
        for _, array in given:
            if array.size == 1 and array.item():
                self.pin(array, "taken alone")  # a dimension of one index cannot lose it
        kept = [simple for dims, array in given if (simple := _simplify(dims, array)) is not None]
        for dims, array in kept:
            if len(dims) > 1:
                self.splits.append(array)
        self.layouts[value] = tuple(kept)

    def tie(self, one: np.ndarray | None, two: np.ndarray | None, why: str = "meets a fixed dimension") -> None:
        """Labels at the same position leave together; against a fixed dimension (None) they stay."""
        if one is None or two is None:
            self.pin(one if two is None else two, why)
        elif one is not two:
            one, two = one if one.ndim == 1 else one.ravel(), two if two.ndim == 1 else two.ravel()
            if not (self._all_free(one) and self._all_free(two)):
                free = (one != 0) & (two != 0)
                self.pin(np.maximum(one, two)[~free], FIXED_PARTNER)
                one, two = one[free], two[free]
            self.ties.append((one, two))

    def _all_free(self, labels: np.ndarray) -> bool:
        return id(labels) in self.runs or bool(labels.all())

    def pin(self, labels: np.ndarray | None, why: str) -> None:
        """These labels stay."""
        if labels is not None:
            self.pins.append(Pin(labels if labels.ndim == 1 else labels.ravel(), why, self.op))

    def fix(self, value: int, dim: int, why: str) -> None:
        """Make `dim` fixed: tie along it in a block of several dimensions, otherwise pin its labels."""
        found = self.block(value, dim)
        if found is None:
            return
        dims, array = found
        rest = tuple(block for block in self.layouts[value] if block is not found)
        if len(dims) == 1:
            self.pin(array, why)
            # The same labels along another dimension (of scores between tokens and tokens) stay as well.
            self.layouts[value] = tuple(b for b in rest if b[1].size != array.size or not np.array_equal(b[1], array))
            return
        axis = dims.index(dim)
        first = array[at_first(axis)]
        self.ties.append((np.broadcast_to(first, array.shape).ravel(), array.ravel()))
        simple = _simplify(tuple(d for d in dims if d != dim), first.squeeze(axis))
        self.layouts[value] = (*rest, simple) if simple is not None else rest

    def part(self, value: int, inner: int) -> None:
        """Split the block that joins `inner` with others: whole rows leave (heads), or positions in all rows."""
        found = self.block(value, inner)
        if found is None or len(found[0]) == 1:
            return
        if self.attention is Attention.HEADS:
            self.fix(value, inner, "")
        else:
            for dim in found[0]:
                if dim != inner:
                    self.fix(value, dim, "")

    def extent(self, value: int, dim: int) -> None:
        """Fix `dim`, the height, width or depth of a kernel, which nobody takes for channels."""
        found = self.block(value, dim)
        if found is not None and len(found[0]) == 1:
            self.extents.append(found[1])
        self.fix(value, dim, "kernel extent")

    def fix_sources(self, value: int, why: str) -> None:
        """Pin the labelled values that this one was computed from: it is a summary of all their channels."""
        waiting = [value]
        while waiting:
            here = waiting.pop()
            if here in self.looked_at:
                continue
            self.looked_at.add(here)
            if self.layouts.get(here):
                self.fix_all(here, why)
            elif here in self.makers:
                waiting += operands(self.makers[here])

    def fix_all(self, value: int, why: str) -> None:
        """Pin every label of the value."""
        for _, array in self.layouts.get(value, ()):
            self.pin(array, why)

    def written(self, values: Iterable[int]) -> None:
        """What the images tell was written into these values: neither they nor what they are views of are constant."""
        for value in values:
            while value in self.const:
                self.const.discard(value)
                made = operands(self.makers[value]) if value in self.makers else ()
                value = made[0] if made else value  # noqa: PLW2901 - one view further

    def consumes(self, labels: np.ndarray | None, makes: np.ndarray | None = None) -> None:
        """Remember through which labels (its input dimension) a weight reads channels, and which it makes."""
        if labels is not None:
            self.consumed.append(labels.ravel())
            if makes is not None:
                self.maps.append((labels.ravel(), makes.ravel()))

    def uses_statistics(self) -> None:
        """Remember that the current operator takes statistics over labelled dimensions."""
        if self.op is not None:
            self.statistics.append(self.op)


def _simplify(dims: tuple[int, ...], array: np.ndarray) -> Block | None:
    """Drop the dimensions along which the labels do not vary; None where nothing labelled is left."""
    for axis in reversed(range(len(dims))):
        if array.size > 1 and len(dims) > 1 and not varies(array, axis):
            array = array[at_first(axis)].squeeze(axis)
            dims = dims[:axis] + dims[axis + 1 :]
    if array.size < 2 or not (array.item(0) or array.any()):
        return None
    return dims, array


def at_first(axis: int) -> tuple[slice, ...]:
    """Index that takes the first entry along `axis`, which stays: a view, where `np.take` copies and takes longer."""
    return (slice(None),) * axis + (slice(0, 1),)


def varies(array: np.ndarray, axis: int) -> bool:
    """Whether different numbers lie along `axis`."""
    if array.shape[axis] == 1 or array.size == 0:
        return False
    if array.item(0) != array[(0,) * axis + (1,) + (0,) * (array.ndim - axis - 1)]:
        return True
    return bool((array != array[at_first(axis)]).any())


def moved(layout: Layout, target: Mapping[int, int] | Sequence[int]) -> list[Block]:
    """Rename dimensions: dimension d becomes `target[d]`, which must be there for every labelled one."""
    return [(tuple(target[d] for d in dims), array) for dims, array in layout]


def ordered(dims: tuple[int, ...], array: np.ndarray) -> Block:
    """Return the block with its dimensions in rising order."""
    if len(dims) < 2 or all(a < b for a, b in itertools.pairwise(dims)):
        return dims, array
    order = sorted(range(len(dims)), key=dims.__getitem__)
    return tuple(dims[i] for i in order), array.transpose(order)


def refs(item: object) -> list[int]:
    """Value numbers among an operator's arguments, in order."""
    if isinstance(item, Ref):
        return [item.value]
    if isinstance(item, (list, tuple)):
        if all(type(part) is Ref for part in item):  # a long list, to be concatenated
            return [part.value for part in item]
        return [value for part in item for value in refs(part)]
    return []


def operands(op: Op) -> list[int]:
    """All value numbers an operator reads; found once, and not to be changed."""
    if op.reads is None:
        op.reads = found = []
        for item in (*op.args, *op.kwargs.values()):
            kind = type(item)
            if kind is Ref:
                found.append(item.value)
            elif kind in (list, tuple):
                found += refs(item)
    return op.reads


def label_parameters(couplings: Couplings, trace: Trace, names: Mapping[str, tuple[np.ndarray | None, ...]]) -> None:
    """Give the trace's parameters their labels, one array a dimension (None: fixed), and the inputs nothing."""
    for name, value in trace.parameters.items():
        couplings.set(value, tuple([((d,), a) for d, a in enumerate(names[name]) if a is not None]))
        couplings.const.add(value)
