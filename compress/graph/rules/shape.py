"""Operators that rename, split and merge dimensions: the label arrays move with them, nothing is tied."""

from __future__ import annotations

import math

import numpy as np

from compress.core.choosing import Attention
from compress.graph.couplings import Block, Couplings, operands, ordered
from compress.graph.rules.table import arguments, rule, value, wrap
from compress.graph.trace import Op

Segment = tuple[range, range]
_MOVING = ("aten.transpose", "aten.permute", "aten.clone", "aten.contiguous", "aten.view", "aten._unsafe_view",
           "aten.reshape", "aten.alias")  # fmt: skip
_JOINING = ("aten.add", "aten.sub", "aten.mul", "aten.div")
_REPEATING = ("aten.expand", "aten.expand_copy", "aten.broadcast_to", "aten.expand_as")


def segments(old: tuple[int, ...], new: tuple[int, ...]) -> list[Segment]:
    """Cut two shapes of the same size into the shortest matching runs of dimensions.

    >>> segments((2, 12, 4), (2, 3, 4, 4))
    [(range(0, 1), range(0, 1)), (range(1, 2), range(1, 3)), (range(2, 3), range(3, 4))]
    """
    i = j = 0
    found = []
    while i < len(old) or j < len(new):
        start_i, start_j, p, q = i, j, 1, 1
        if i < len(old):
            p, i = old[i], i + 1
        if j < len(new):
            q, j = new[j], j + 1
        while p != q:
            if p < q:
                p, i = p * old[i], i + 1
            else:
                q, j = q * new[j], j + 1
        found.append((range(start_i, i), range(start_j, j)))
    return found


@rule(
    "aten.view", "aten._unsafe_view", "aten._reshape_alias", "aten.reshape", "aten.flatten",
    "aten.unflatten", "aten._reshape_copy", "aten.view_as", "aten.reshape_as",
)  # fmt: skip
def view(c: Couplings, op: Op) -> None:
    """Merge dimensions (labels repeat) and split them (a block over several dimensions)."""
    x, out = operands(op)[0], op.outs[0]
    old, new = c.shape(x), c.shape(out)
    if old == new:
        c.set(out, c.layout(x))
        return
    if math.prod(old) == 0 or not c.layout(x):
        c.set(out, [])
        return
    runs = segments(old, new)
    merging = [(a, b) for a, b in runs if len(a) > 1 or len(b) > 1]
    for old_dims, _ in merging:
        _only_one(c, x, old_dims)
    c.set(out, [_reshaped(block, runs, old, new) for block in c.layout(x)])


def _only_one(c: Couplings, x: int, dims: range) -> None:
    """An index of merged dimensions can carry one label: keep the block with most to give, fix the rest.

    Of the heads and the width that attention made, the one that is asked for is kept. Of key heads and the copies that
    queries read (grouped queries), the more numerous.
    """
    blocks = [block for block in c.layout(x) if any(d in dims for d in block[0])]
    if len(blocks) < 2:
        return
    if _by_products(c, x):
        outer = -1 if c.attention is Attention.HEADS else 1
        blocks.sort(key=lambda block: outer * block[0][0])
    elif copies := [block for block in blocks if _copied(c, x, block, dims)]:
        blocks.sort(key=lambda block: any(block is other for other in copies))
    else:
        blocks.sort(key=lambda block: (c.is_parameter(block[1]), block[1].size))
    for at, _ in blocks[:-1]:
        for d in at:
            if d in dims:
                c.fix(x, d, "merged with another labelled dimension")


def _by_products(c: Couplings, x: int) -> bool:
    """Whether a product over tokens made the value, its dimensions since only moved, and something added or scaled.

    What multiplies with a weight is a layer.
    """
    waiting, seen = [x], {x}
    while waiting:
        maker = c.makers.get(waiting.pop())
        if maker is None:
            continue
        if maker.name.startswith(("aten.bmm", "aten.baddbmm", "aten._scaled_dot_product")):
            if c.const.isdisjoint(operands(maker)):
                return True
            continue
        if maker.name in _MOVING or maker.plain in _JOINING:
            waiting += [v for v in operands(maker) if v not in seen]
            seen.update(operands(maker))
    return False


def _copied(c: Couplings, x: int, block: Block, dims: range) -> bool:
    """Whether the block are copies of heads, more than there are heads: then the same copies of all heads leave."""
    if c.attention is not Attention.HEADS or len(dims) != 2 or block[0] != (dims[1],) or c.is_parameter(block[1]):
        return False
    return block[1].size > c.shape(x)[dims[0]] > 1 and _repeats_added(c, x)


def _repeats_added(c: Couplings, x: int) -> bool:
    """Whether the value repeats a dimension that was added for it, as copies of heads do.

    What repeats a dimension that a mean or a variance left with size 1 only takes the place that it had.
    """
    repeated = False
    while (maker := c.makers.get(x)) is not None:
        source = operands(maker)[0]
        added = c.shape(x).count(1) > c.shape(source).count(1)
        if repeated and added and (maker.name in _MOVING or maker.name.startswith("aten.unsqueeze")):
            return True
        if maker.name in _REPEATING:
            repeated = repeated or c.shape(x) != c.shape(source)
        elif maker.name not in _MOVING:
            return False
        x = source
    return False


def _reshaped(block: Block, runs: list[Segment], old: tuple[int, ...], new: tuple[int, ...]) -> Block:
    dims, array = block
    touched = [(a, b) for a, b in runs if any(d in a for d in dims)]
    old_dims = [d for a, _ in touched for d in a]
    new_dims = tuple(d for _, b in touched for d in b)
    spread = array.reshape([old[d] if d in dims else 1 for d in old_dims])
    full = np.broadcast_to(spread, [old[d] for d in old_dims])
    return new_dims, full.reshape([new[d] for d in new_dims])


def _renamed(c: Couplings, x: int, out: int, target: dict[int, int]) -> None:
    c.set(out, [ordered(tuple(target[d] for d in dims), array) for dims, array in c.layout(x)])


@rule("aten.permute")
def permute(c: Couplings, op: Op) -> None:
    """Dimensions in another order."""
    a = arguments(op)
    x = value(a["self"])
    rank = len(c.shape(x))
    _renamed(c, x, op.outs[0], {wrap(d, rank): i for i, d in enumerate(a["dims"])})


@rule("aten.t", "aten.numpy_T", "aten.mT", "aten.adjoint")
def transpose_last(c: Couplings, op: Op) -> None:
    """The last two dimensions swapped."""
    x = operands(op)[0]
    rank = len(c.shape(x))
    swap = {rank - 1: rank - 2, rank - 2: rank - 1} if rank > 1 else {}
    _renamed(c, x, op.outs[0], {d: swap.get(d, d) for d in range(rank)})


@rule("aten.transpose", "aten.swapaxes")
def transpose(c: Couplings, op: Op) -> None:
    """Two dimensions swapped."""
    x, rank = operands(op)[0], len(c.shape(operands(op)[0]))
    one, two = wrap(int(op.args[1]), rank), wrap(int(op.args[2]), rank)
    swap = {one: two, two: one}
    _renamed(c, x, op.outs[0], {d: swap.get(d, d) for d in range(rank)})


@rule("aten.unsqueeze")
def unsqueeze(c: Couplings, op: Op) -> None:
    """A new dimension of size 1."""
    x, out = operands(op)[0], op.outs[0]
    rank = len(c.shape(out)) if out != x else len(c.shape(x))
    at = wrap(int(op.args[1]), rank)
    _renamed(c, x, out, {d: d + (d >= at) for d in range(rank)})


@rule("aten.squeeze")
def squeeze(c: Couplings, op: Op) -> None:
    """Dimensions of size 1 removed."""
    x, out = operands(op)[0], op.outs[0]
    shape = c.shape(x)
    given = op.args[1] if len(op.args) > 1 else list(range(len(shape)))
    gone = {wrap(d, len(shape)) for d in ([given] if isinstance(given, int) else given)}
    left = [d for d in range(len(shape)) if not (d in gone and shape[d] == 1)]
    _renamed(c, x, out, {d: i for i, d in enumerate(left)})


@rule("aten.flip", "aten.fliplr", "aten.flipud")
def flip(c: Couplings, op: Op) -> None:
    """Dimensions back to front, and so are their labels."""
    a = arguments(op)
    x = value(a["self"])
    rank = len(c.shape(x))
    given = a.get("dims", [])
    turned = {wrap(d, rank) for d in ([given] if isinstance(given, int) else given)}
    blocks: list[Block] = []
    for dims, array in c.layout(x):
        along = tuple(slice(None, None, -1 if d in turned else 1) for d in dims)
        blocks.append((dims, array[along]))
    c.set(op.outs[0], blocks)


@rule(*_REPEATING)
def expand(c: Couplings, op: Op) -> None:
    """Dimensions of size 1 repeated: all copies are alike, so each is free to leave."""
    x, out = operands(op)[0], op.outs[0]
    old, new = c.shape(x), c.shape(out)
    lead = len(new) - len(old)
    blocks: list[Block] = [(tuple(d + lead for d in dims), array) for dims, array in c.layout(x)]
    for d, size in enumerate(new):
        if size > 1 and (d < lead or old[d - lead] == 1):
            blocks.append(((d,), c.fresh(size)))
    c.set(out, blocks)


@rule("aten.repeat", "aten.tile")
def repeat(c: Couplings, op: Op) -> None:
    """The tensor laid beside itself: labels are laid beside themselves."""
    x, out = operands(op)[0], op.outs[0]
    old, new = c.shape(x), c.shape(out)
    lead = len(new) - len(old)
    blocks: list[Block] = []
    for dims, array in c.layout(x):
        at = tuple(d + lead for d in dims)
        blocks.append((at, np.tile(array, [new[d] // old[d - lead] for d in at])))
    for d, size in enumerate(new):
        if size > 1 and (d < lead or old[d - lead] == 1):
            blocks.append(((d,), c.fresh(size)))
    c.set(out, blocks)


@rule("aten.as_strided")
def as_strided(c: Couplings, op: Op) -> None:
    """A view by strides: followed only where it changes nothing but strides."""
    x, out = operands(op)[0], op.outs[0]
    if c.shape(x) == c.shape(out):
        c.set(out, c.layout(x))
        return
    c.fix_all(x, "as_strided reads memory by address")
    c.set(out, [])
