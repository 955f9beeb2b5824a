"""Channels chosen by a tensor of positions whose values are known: x[:, order] with a buffer or a list for `order`.

The labels of the chosen dimension are chosen alike: y = x[:, order] has labels x[order]. Entry i of `order` leaves with
the channel order[i], and what is left is counted anew among the channels that stay:
    order' = rank(order[kept entries]),   rank(j) = how many of the first j channels stay
A tensor that is read for anything else than choosing is left alone, and pins what it chooses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from compress.graph.couplings import Couplings, operands
from compress.graph.trace import Op, Trace

# Operators that hand a tensor's values on.
_SAME = frozenset(
    {"aten.lift_fresh", "aten.lift_fresh_copy", "aten.lift", "aten.detach", "aten.alias", "aten.clone",
     "aten._to_copy", "aten.to", "aten.contiguous"}
)  # fmt: skip
CHOOSING = frozenset({"aten.index", "aten._unsafe_index", "aten.index_select"})


def root(c: Couplings, value: int) -> int:
    """The value that this one is a copy of."""
    while value in c.makers and c.makers[value].name in _SAME:
        before = operands(c.makers[value])[0]
        if before == value:  # the operator gave back the very tensor
            break
        value = before
    return value


def known(c: Couplings, value: int) -> np.ndarray | None:
    """Positions that the value holds, shape (entries,); None where they are not known."""
    found = c.constants.get(root(c, value))
    if not isinstance(found, Tensor) or found.dim() != 1 or found.dtype not in (torch.int64, torch.int32):
        return None
    if found.is_meta:  # a network without values
        return None
    return np.asarray(found.cpu().numpy(), dtype=np.int64)


def choose(c: Couplings, x: int, dim: int, value: int) -> bool:
    """Give the channels of `x` that `value` chooses along `dim` to it; False where that cannot be followed.

    Rows of a parameter stay: what chooses them is a lookup, not a choice of channels.
    """
    positions, labels = known(c, value), None if x in c.const else c.labels(x, dim)
    if positions is None or labels is None or not len(positions):
        return False
    if not (-len(labels) <= positions.min() and positions.max() < len(labels)):
        return False
    source = root(c, value)
    tensor = c.constants[source]
    assert isinstance(tensor, Tensor)
    before = c.chosen.get(id(tensor))
    if before is not None:  # one tensor has one set of new values
        same = len(before[1]) == len(labels)
        c.tie(before[1] if same else None, labels, "chosen by positions that choose elsewhere too")
        if not same:
            c.pin(before[1], "chosen by positions that choose elsewhere too")
    else:
        c.chosen[id(tensor)] = tensor, labels
    entries = c.labels(source, 0)
    if entries is not None:
        c.tie(entries, labels[positions])
    return True


def pin_other_readers(c: Couplings, ops: Sequence[Op]) -> None:
    """Pin what is chosen by a tensor that the network also computes with."""
    roots = {value: c.constants[value] for value in c.constants if id(c.constants[value]) in c.chosen}
    if not roots:
        return
    for op in ops:
        if op.name in _SAME or not operands(op):
            continue
        read = operands(op) if op.name not in CHOOSING else operands(op)[:1]
        for value in read:
            found = roots.get(root(c, value))
            if found is not None:
                c.op = op
                c.pin(c.chosen[id(found)][1], "chosen by a tensor that the network computes with")
    c.op = None


def pin_read_numbers(c: Couplings, recorded: Trace) -> None:
    """Pin what a value counts that an operator reads, or that the network gives."""
    if not c.numbers:
        return
    makers = {out: op for op in recorded.ops for out in op.outs}
    readers = [(op, v) for op in recorded.ops for v in operands(op)]
    readers += [(makers[v], v) for v in recorded.outputs if v in makers]
    for c.op, v in readers:
        for labels in c.numbers.get(v, ()):
            c.pin(labels, "its channels are counted")
    c.op = None


def renumbered(positions: Tensor, labels: np.ndarray, dead: np.ndarray) -> Tensor:
    """Positions among the channels that stay, (kept entries,)."""
    gone = dead[labels]
    old = np.asarray(positions.cpu().numpy(), dtype=np.int64) % len(labels)
    return torch.from_numpy((np.cumsum(~gone) - 1)[old][~gone[old]]).to(positions)


def all_renumbered(c: Couplings, dead: np.ndarray) -> dict[int, Tensor]:
    """What every tensor of positions becomes, by the id of what it was."""
    return {key: renumbered(tensor, labels, dead) for key, (tensor, labels) in c.chosen.items()}
