"""Operators that work on each element by itself: aligned dimensions are tied, a size-1 dimension imposes nothing."""

from __future__ import annotations

import numpy as np

from compress.graph.couplings import Couplings, operands
from compress.graph.rules.table import rule
from compress.graph.trace import Op


def unify(c: Couplings, values: list[int], out: int) -> None:
    """Tie the values' labels where they align with `out` under broadcasting, and give `out` the result."""
    shape = c.shape(out)
    if len(values) == 1 and c.shape(values[0]) == shape:
        c.set(out, c.layout(values[0]))
        return
    rank = len(shape)
    _agree(c, values, rank)
    merged: dict[tuple[int, ...], np.ndarray] = {}
    for v in values:
        lead = rank - len(c.shape(v))
        for dims, array in c.layout(v):
            at = tuple(d + lead for d in dims)
            if at in merged:
                c.tie(merged[at], array)
            else:
                merged[at] = array
    for v in values:
        lead = rank - len(c.shape(v))
        covered = {d + lead for dims, _ in c.layout(v) for d in dims}
        for at in list(merged):
            full = [d for d in at if d >= lead and c.shape(v)[d - lead] == shape[d] and d not in covered]
            if full:
                left, array = _without(c, at, merged.pop(at), full)
                if left:
                    merged[left] = array
    c.set(out, list(merged.items()))


def _without(
    c: Couplings, at: tuple[int, ...], array: np.ndarray, fixed: list[int]
) -> tuple[tuple[int, ...], np.ndarray]:
    """Take the dimensions that meet a fixed tensor out of a block: tie along them, or pin where nothing is left."""
    if len(fixed) == len(at):
        c.pin(array, "combined with a fixed tensor")
        return (), array
    for dim in fixed:
        axis = at.index(dim)
        c.tie(np.broadcast_to(np.take(array, [0], axis), array.shape), array)
        array, at = np.take(array, 0, axis), at[:axis] + at[axis + 1 :]
    return at, array


def _agree(c: Couplings, values: list[int], rank: int) -> None:
    """Where blocks of different values overlap without being over the same dimensions, take them apart first."""
    for _ in range(rank):
        blocks: list[tuple[int, int, tuple[int, ...]]] = []
        for v in values:
            lead = rank - len(c.shape(v))
            blocks += [(v, lead, tuple(d + lead for d in dims)) for dims, _ in c.layout(v)]
        clash = next(
            ((v, lead, a) for v, lead, a in blocks for _, _, b in blocks if len(a) > 1 and a != b and set(a) & set(b)),
            None,
        )
        if clash is None:
            return
        v, lead, dims = clash
        c.part(v, dims[-1] - lead)


@rule(
    "aten.copy_",
    "aten.copy",
)
def copy(c: Couplings, op: Op) -> None:
    """A tensor written into another one (in place): labels of both are tied; the target keeps its own."""
    target, source = operands(op)[:2]
    unify(c, [target, source], target)
    if op.outs[0] != target:
        c.set(op.outs[0], c.layout(target))


def pointwise(c: Couplings, op: Op) -> None:
    """Any operator that PyTorch tags as pointwise, in place or not."""
    values = operands(op)
    for out in op.outs:
        if out not in values or len(values) > 1:
            unify(c, values, out)


# Element-wise in fact, though PyTorch does not tag them so.
_ACTIVATIONS = (
    "hardswish", "hardsigmoid", "silu", "mish", "gelu", "elu", "celu", "selu", "leaky_relu", "softplus", "softsign",
    "log_sigmoid", "log_sigmoid_forward", "hardshrink", "softshrink", "tanhshrink", "relu", "sigmoid", "tanh",
)  # fmt: skip

rule(
    "aten.native_dropout",
    "aten.fill_",
    "aten.zero_",
    "aten.masked_fill",
    "aten.where",
    "aten.clone",
    "aten.detach",
    "aten.alias",
    "aten.contiguous",
    "aten._to_copy",
    "aten.to",
    "aten.lift_fresh",
    "aten.lift",
    "aten.rrelu_with_noise",
    "aten.zeros_like",
    "aten.ones_like",
    "aten.full_like",
    "aten.empty_like",
    "aten.threshold",
    "aten.hardtanh",
    "aten.relu6",
    "aten.dropout",
    *(f"aten.{name}" for name in _ACTIVATIONS),
)(pointwise)


@rule("aten._prelu_kernel")
def prelu(c: Couplings, op: Op) -> None:
    """x (N, C, *), w (1, C, 1...) or one number."""
    unify(c, operands(op), op.outs[0])


@rule("aten.glu")
def glu(c: Couplings, op: Op) -> None:
    """x (*, 2C, *) -> first half times the sigmoid of the second: the halves are tied."""
    x, out = operands(op)[0], op.outs[0]
    dim = int(op.args[1]) if len(op.args) > 1 else -1
    dim = dim % len(c.shape(x))
    labels = c.labels(x, dim)
    rest = [block for block in c.layout(x) if dim not in block[0]]
    if labels is not None:
        first, second = labels.reshape(2, -1)
        c.tie(first, second)
        rest.append(((dim,), first))
    c.set(out, rest)
