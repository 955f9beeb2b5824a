"""Operators that reduce dimensions, or run along one.

A sum over a labelled dimension is a contraction with ones: removed channels add nothing. A mean, a norm or a largest
value is a statistic, taken over what is kept. Everything else over a labelled dimension pins it.
"""

from __future__ import annotations

from collections.abc import Sequence

from compress.graph.couplings import Block, Couplings, operands
from compress.graph.rules.table import arguments, rule, value, wrap
from compress.graph.trace import Op


def _dims(given: int | Sequence[int] | None, rank: int) -> list[int]:
    if given is None or (isinstance(given, Sequence) and not given):
        return list(range(rank))
    return [wrap(d, rank) for d in ([given] if isinstance(given, int) else given)]


def _drop(c: Couplings, x: int, dims: list[int], *, keepdim: bool) -> list[Block]:
    rank = len(c.shape(x))
    left = [d for d in range(rank) if d not in dims]
    target = {d: (d if keepdim else i) for i, d in enumerate(left)}
    return [(tuple(target[d] for d in at), a) for at, a in c.layout(x) if all(d in target for d in at)]


def _single(c: Couplings, x: int, dim: int) -> bool:
    """Give `dim` to itself; tell whether it is labelled."""
    c.part(x, dim)
    return c.labels(x, dim) is not None


@rule("aten.sum", "aten.nansum")
def total(c: Couplings, op: Op) -> None:
    """Sum over dimensions: channels that left add nothing."""
    a = arguments(op)
    x = value(a["self"])
    dims = _dims(a.get("dim"), len(c.shape(x)))
    for dim in dims:
        _single(c, x, dim)
    c.set(op.outs[0], _drop(c, x, dims, keepdim=bool(a.get("keepdim"))))


@rule(
    "aten.mean", "aten.var", "aten.std", "aten.var_mean", "aten.std_mean", "aten.linalg_vector_norm", "aten.norm",
    "aten.amax", "aten.amin", "aten.aminmax", "aten.max", "aten.min",
)  # fmt: skip
def statistic(c: Couplings, op: Op) -> None:
    """Mean, variance, norm or extreme: over a labelled dimension it is taken over what is kept.

    Where an extreme was found is a number of a channel, if it was among channels.
    """
    a = arguments(op)
    x, keepdim = value(a.get("self", a.get("input", op.args[0]))), bool(a.get("keepdim"))
    dims = _dims(a.get("dim"), len(c.shape(x)))
    labelled = [c.labels(x, dim) for dim in dims if _single(c, x, dim)]
    if labelled:
        c.uses_statistics()
        if op.name in ("aten.max", "aten.min") and len(op.outs) > 1:
            c.numbers[op.outs[1]] = [labels for labels in labelled if labels is not None]
    blocks = _drop(c, x, dims, keepdim=keepdim)
    for out in op.outs:
        c.set(out, blocks)


@rule(
    "aten.prod", "aten.argmax", "aten.argmin", "aten.any", "aten.all", "aten.logsumexp", "aten.median",
    "aten.nanmedian", "aten.mode", "aten.kthvalue", "aten.count_nonzero",
)  # fmt: skip
def extreme(c: Couplings, op: Op) -> None:
    """Reduce over dimensions, all elements of which matter."""
    a = arguments(op)
    x = value(a.get("self", op.args[0]))
    dims = _dims(a.get("dim"), len(c.shape(x)))
    for dim in dims:
        c.fix(x, dim, f"{op.name} over the channels")
    blocks = _drop(c, x, dims, keepdim=bool(a.get("keepdim")))
    for out in op.outs:
        c.set(out, blocks)


@rule(
    "aten._softmax", "aten._safe_softmax", "aten._log_softmax", "aten.softmax", "aten.cumsum", "aten.cumprod",
    "aten.sort", "aten.topk", "aten.argsort", "aten.cummax", "aten.logcumsumexp", "aten._masked_softmax",
)  # fmt: skip
def along(c: Couplings, op: Op) -> None:
    """Run along one dimension, whose every element matters."""
    a = arguments(op)
    x = operands(op)[0]
    rank = len(c.shape(x))
    given = a.get("dim", a.get("dims", -1))
    for dim in _dims(given, rank):
        c.fix(x, dim, f"{op.name} along the channels")
    for out in op.outs:
        same = len(c.shape(out)) == rank
        c.set(out, c.layout(x) if same else [])


@rule("aten.tril", "aten.triu")
def triangle(c: Couplings, op: Op) -> None:
    """Keep a triangle of the last two dimensions."""
    x = operands(op)[0]
    rank = len(c.shape(x))
    for dim in (rank - 1, rank - 2):
        c.fix(x, dim, f"{op.name} over the channels")
    c.set(op.outs[0], c.layout(x))
