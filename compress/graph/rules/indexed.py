"""Operators that take or put elements at places that a tensor names."""

from __future__ import annotations

from compress.graph.couplings import Block, Couplings, operands, refs
from compress.graph.positions import choose, known
from compress.graph.rules.elementwise import unify
from compress.graph.rules.table import arguments, rule, value, wrap
from compress.graph.trace import Op


@rule("aten.index", "aten._unsafe_index")
def index(c: Couplings, op: Op) -> None:
    """x[..., i, j, ...] with index tensors: indexed dimensions stay, the others move.

    One dimension, indexed by positions that are known (a buffer, a list), has its labels chosen alike.
    """
    x, out = operands(op)[0], op.outs[0]
    given = list(op.args[1])
    at = [d for d, item in enumerate(given) if item is not None]
    if len(at) == 1 and choose(c, x, at[0], refs(given[at[0]])[0]):
        c.set(out, _chosen(c, x, at[0], refs(given[at[0]])[0]))
        return
    for item in given:
        for v in refs(item):
            c.fix_all(v, "its values are used as an index")
    for d in at:
        c.fix(x, d, "indexed by a tensor")
    new_dims = len(c.shape(out)) - (len(c.shape(x)) - len(at))
    adjacent = at == list(range(at[0], at[0] + len(at))) if at else True
    front = at[0] if adjacent and at else 0
    rest = [d for d in range(len(c.shape(x))) if d not in at]
    target = {d: (i if i < front else i + new_dims) for i, d in enumerate(rest)}
    c.set(out, [(tuple(target[d] for d in dims), a) for dims, a in c.layout(x)])


def _chosen(c: Couplings, x: int, dim: int, index: int) -> list[Block]:
    """Blocks of x with the known positions along `dim`."""
    positions = known(c, index)
    assert positions is not None
    return [(dims, array[positions] if dims == (dim,) else array) for dims, array in c.layout(x)]


@rule("aten.index_select")
def index_select(c: Couplings, op: Op) -> None:
    """Indices of one dimension, chosen by a tensor: that dimension stays, unless the tensor's values are known."""
    a = arguments(op)
    x = value(a["self"])
    dim = wrap(int(a["dim"]), len(c.shape(x)))
    if choose(c, x, dim, value(a["index"])):
        c.set(op.outs[0], _chosen(c, x, dim, value(a["index"])))
        return
    c.fix_all(value(a["index"]), "its values are used as an index")
    c.fix(x, wrap(int(a["dim"]), len(c.shape(x))), "indexed by a tensor")
    c.set(op.outs[0], c.layout(x))


@rule("aten.embedding")
def embedding(c: Couplings, op: Op) -> None:
    """Rows of w (V, D), chosen by a tensor (*) -> (*, D): the rows stay, D is carried."""
    w, indices = operands(op)[:2]
    c.fix_all(indices, "its values are used as an index")
    c.fix(w, 0, "indexed by a tensor")
    labels = c.labels(w, 1)
    last = len(c.shape(op.outs[0])) - 1
    c.set(op.outs[0], [((last,), labels)] if labels is not None else [])


@rule("aten.gather", "aten.scatter", "aten.scatter_add", "aten.scatter_reduce")
def gather(c: Couplings, op: Op) -> None:
    """Elements at places along one dimension: every other dimension of tensor, index and source runs in step."""
    a = arguments(op)
    values = operands(op)
    dim = wrap(int(a["dim"]), len(c.shape(values[0])))
    for v in values:
        c.fix(v, dim, "its elements are taken or put by a tensor")
        for d, extents in enumerate(zip(*(c.shape(w) for w in values), strict=True)):
            if len(set(extents)) > 1:  # only the first indices of the larger one take part
                c.fix(v, d, "only a part of it is taken or put")
    unify(c, values, op.outs[0])


@rule("aten.index_put", "aten._unsafe_index_put", "aten._index_put_impl_")
def index_put(c: Couplings, op: Op) -> None:
    """x[i, ...] = y: the dimensions up to the last one that an index takes stay, those behind it run in step with y.

    A mask of truth values takes as many dimensions as it has itself.
    """
    x, given, y = value(op.args[0]), list(op.args[1]), value(op.args[2])
    places = [(d, v) for d, item in enumerate(given) if item is not None for v in refs(item)]
    behind = max((d + max(len(c.shape(v)), 1) for d, v in places), default=0)
    for _, v in places:
        c.fix_all(v, "its values are used as an index")
    rank, other = len(c.shape(x)), len(c.shape(y))
    for d in range(min(behind, rank)):
        c.fix(x, d, "indexed by a tensor")
    for d in range(other - max(rank - behind, 0)):
        c.fix(y, d, "put at the places of an index")
    for d in range(1, min(rank - behind, other) + 1):
        if c.shape(y)[other - d] == c.shape(x)[rank - d] > 1:
            c.tie(c.labels(x, rank - d), c.labels(y, other - d))
    c.set(op.outs[0], c.layout(x))


@rule("aten.index_add", "aten.index_copy", "aten.index_reduce")
def index_add(c: Couplings, op: Op) -> None:
    """Slices of a source, put or added at places along one dimension: the other dimensions run in step."""
    a = arguments(op)
    x, source = value(a["self"]), value(a["source"])
    dim = wrap(int(a["dim"]), len(c.shape(x)))
    c.fix_all(value(a["index"]), "its values are used as an index")
    for v in (x, source):
        c.fix(v, dim, "indexed by a tensor")
    unify(c, [x, source], op.outs[0])


@rule("aten.index_fill")
def index_fill(c: Couplings, op: Op) -> None:
    """One number written over some indices of a dimension, which stays."""
    a = arguments(op)
    x = value(a["self"])
    c.fix_all(value(a["index"]), "its values are used as an index")
    c.fix(x, wrap(int(a["dim"]), len(c.shape(x))), "indexed by a tensor")
    c.set(op.outs[0], c.layout(x))


@rule("aten.max_unpool2d", "aten.max_unpool3d")
def max_unpool(c: Couplings, op: Op) -> None:
    """x (N, C, *spatial), put where `indices` of the same shape says inside each channel's plane."""
    x, indices = operands(op)[:2]
    for v in (x, indices):
        for d in range(2, len(c.shape(v))):
            c.fix(v, d, "spatial extent")
    unify(c, [x, indices], indices)
    c.set(op.outs[0], c.layout(indices))
