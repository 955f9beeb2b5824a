"""Operators that take or join indices: plain slicing and concatenation of the label arrays."""

from __future__ import annotations

import numpy as np

from compress.graph.couplings import Block, Couplings, operands, refs
from compress.graph.rules.elementwise import unify
from compress.graph.rules.table import arguments, rule, value, wrap
from compress.graph.trace import Op


def _cut(c: Couplings, x: int, dim: int, start: int, stop: int, step: int = 1) -> list[Block]:
    """Blocks of x[..., start:stop:step, ...]."""
    blocks = []
    for dims, array in c.layout(x):
        if dim in dims:
            where = [slice(None)] * array.ndim
            where[dims.index(dim)] = slice(start, stop, step)
            array = array[tuple(where)]  # noqa: PLW2901 - the block narrowed
        blocks.append((dims, array))
    return blocks


def _take(c: Couplings, x: int, dim: int, index: int) -> list[Block]:
    """Blocks of x.select(dim, index)."""
    blocks = []
    for dims, array in c.layout(x):
        left = tuple(d - (d > dim) for d in dims if d != dim)
        if dim in dims:
            taken = np.take(array, index, dims.index(dim))
            if not left:  # one channel taken out by its number: it must stay where it is
                c.pin(array, "one channel is selected by its number")
                continue
            blocks.append((left, taken))
        else:
            blocks.append((left, array))
    return blocks


@rule("aten.slice")
def slicing(c: Couplings, op: Op) -> None:
    """x[start:stop:step] along one dimension."""
    a = arguments(op)
    x = value(a["self"])
    dim = wrap(int(a["dim"]), len(c.shape(x)))
    size = c.shape(x)[dim]
    start, stop, step = slice(a["start"], a["end"], a["step"]).indices(size)
    if step != 1:
        _in_steps(c, x, dim, (start, stop, step))
    c.set(op.outs[0], _cut(c, x, dim, start, stop, step))


def _in_steps(c: Couplings, x: int, dim: int, taken: tuple[int, int, int]) -> None:
    """Every `step`th index: runs of `step` indices leave whole, so that those that stay keep their place in a run."""
    start, stop, step = taken
    labels = c.labels(x, dim)
    if labels is None:
        return
    if start >= step or stop < len(labels):
        c.pin(labels, "sliced with a step from or to the middle")
        return
    c.tie(labels[np.arange(len(labels)) // step * step], labels)


@rule("aten.narrow")
def narrow(c: Couplings, op: Op) -> None:
    """x[start:start + length] along one dimension."""
    a = arguments(op)
    x = value(a["self"])
    dim = wrap(int(a["dim"]), len(c.shape(x)))
    start = int(a["start"]) % c.shape(x)[dim] if a["start"] else 0
    c.set(op.outs[0], _cut(c, x, dim, start, start + int(a["length"])))


@rule("aten.select")
def select(c: Couplings, op: Op) -> None:
    """x[index] along one dimension."""
    a = arguments(op)
    x = value(a["self"])
    dim = wrap(int(a["dim"]), len(c.shape(x)))
    c.set(op.outs[0], _take(c, x, dim, int(a["index"])))


@rule("aten.unbind")
def unbind(c: Couplings, op: Op) -> None:
    """Every index of one dimension as a tensor of its own."""
    a = arguments(op)
    x = value(a["self"])
    dim = wrap(int(a["dim"]), len(c.shape(x)))
    for i, out in enumerate(op.outs):
        c.set(out, _take(c, x, dim, i))


@rule("aten.split", "aten.split_with_sizes", "aten.chunk", "aten.unsafe_split", "aten.unsafe_chunk")
def split(c: Couplings, op: Op) -> None:
    """Runs of one dimension. Runs of one given size (chunk) stay so: a position leaves every run that has it."""
    a = arguments(op)
    x = value(a["self"])
    dim = wrap(int(a["dim"]), len(c.shape(x)))
    sizes = [c.shape(out)[dim] for out in op.outs]
    found = c.block(x, dim)
    if "sizes" not in op.name and found is not None:
        rows = np.moveaxis(found[1], found[0].index(dim), 0)
        c.tie(rows[np.arange(len(rows)) % sizes[0]], rows)  # the last run may be shorter
    start = 0
    for out, size in zip(op.outs, sizes, strict=True):
        c.set(out, _cut(c, x, dim, start, start + size))
        start += size


@rule("aten.cat", "aten.concat")
def cat(c: Couplings, op: Op) -> None:
    """Tensors one after the other along one dimension; the other dimensions are tied."""
    out, shapes = op.outs[0], c.shapes
    rank = len(shapes[out])
    dim = wrap(int(arguments(op)["dim"]), rank)
    parts = [v for v in refs(op.args[0]) if len(shapes[v]) == rank and shapes[v][dim]]  # an empty one adds nothing
    layouts, alone = [c.layout(v) for v in parts], (dim,)
    if parts and all(len(layout) == 1 and layout[0][0] == alone for layout in layouts):  # most are, some of very many
        c.set(out, [(alone, np.concatenate([layout[0][1] for layout in layouts]))])
        return
    for v in parts:
        rows = {d for d in (c.block(v, dim) or ((), None))[0] if d != dim}
        if rows and all(c.block(other, d) is not None for other in parts for d in rows):
            c.part(v, dim)  # heads that all parts have leave whole; a part without them takes positions only
    along = [c.labels(v, dim) for v in parts]
    blocks: list[Block] = []
    if any(a is not None for a in along):
        arrays = [
            np.zeros(c.shape(v)[dim], dtype=np.int64) if a is None else a for v, a in zip(parts, along, strict=True)
        ]
        blocks.append(((dim,), np.concatenate(arrays)))
    c.set(out, blocks + _across(c, parts, dim))


def _across(c: Couplings, parts: list[int], dim: int) -> list[Block]:
    """Tie the blocks of the dimensions other than `dim` over all parts."""
    every = {dims for v in parts for dims, _ in c.layout(v) if dim not in dims}
    if any(len(dims) > 1 for dims in every) and len(every) > 1:
        for v in parts:
            for dims, _ in c.layout(v):
                if len(dims) > 1:
                    c.part(v, dims[-1])
        every = {dims for v in parts for dims, _ in c.layout(v) if dim not in dims}
    blocks: list[Block] = []
    for at in every:
        arrays = [next((a for dims, a in c.layout(v) if dims == at), None) for v in parts]
        present = [a for a in arrays if a is not None]
        for a in present[1:]:
            c.tie(present[0], a)
        if len(present) < len(arrays):
            c.pin(present[0], "concatenated with a fixed tensor")
        blocks.append((at, present[0]))
    return blocks


@rule("aten.stack")
def stack(c: Couplings, op: Op) -> None:
    """Tensors side by side along a new dimension; their own dimensions are tied."""
    out = op.outs[0]
    at = wrap(int(arguments(op)["dim"]), len(c.shape(out)))
    parts = refs(op.args[0])
    blocks = _across(c, parts, -1)
    c.set(out, [(tuple(d + (d >= at) for d in dims), array) for dims, array in blocks])


@rule("aten.unfold")
def unfold(c: Couplings, op: Op) -> None:
    """Sliding windows of one dimension, which stays."""
    x = operands(op)[0]
    c.fix(x, wrap(int(op.args[1]), len(c.shape(x))), "cut into sliding windows")
    c.set(op.outs[0], c.layout(x))


@rule("aten.roll")
def roll(c: Couplings, op: Op) -> None:
    """Indices shifted around: the rolled dimensions stay."""
    a = arguments(op)
    x = value(a["self"])
    rank = len(c.shape(x))
    given = a["dims"] or list(range(rank))
    for d in [given] if isinstance(given, int) else given:
        c.fix(x, wrap(d, rank), "rolled")
    c.set(op.outs[0], c.layout(x))


@rule("aten.slice_scatter")
def slice_scatter(c: Couplings, op: Op) -> None:
    """A tensor with a run of one dimension replaced by another tensor."""
    a = arguments(op)
    x, src, out = value(a["self"]), value(a["src"]), op.outs[0]
    dim = wrap(int(a["dim"]), len(c.shape(x)))
    start, stop, step = slice(a["start"], a["end"], a["step"]).indices(c.shape(x)[dim])
    c.set(out, _cut(c, x, dim, start, stop, step))
    c.shapes.append(c.shape(src))  # a value of its own, so that the run is tied like any elementwise pair
    run = len(c.shapes) - 1
    c.set(run, c.layout(out))
    unify(c, [run, src], run)
    c.set(out, c.layout(x))


@rule("aten.diagonal")
def diagonal(c: Couplings, op: Op) -> None:
    """The places where two dimensions have the same index, as a last dimension: both dimensions stay."""
    a = arguments(op)
    x = value(a["self"])
    gone = {wrap(int(a[key]), len(c.shape(x))) for key in ("dim1", "dim2")}
    for d in gone:
        c.fix(x, d, "its diagonal is taken")
    left = {d: i for i, d in enumerate(d for d in range(len(c.shape(x))) if d not in gone)}
    c.set(op.outs[0], [(tuple(left[d] for d in dims), array) for dims, array in c.layout(x)])
