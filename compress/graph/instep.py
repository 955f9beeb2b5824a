"""Ties and pins that code needs which computes with the number of its channels.

Code that computes `channels // heads` in its forward can follow a cut only where the ratio of channels to heads stays:
every head is tied to its own run of the channels that the projection reads, and whole heads leave with their runs. What
lays a result out by the width of what it was computed from needs as many of both; what computes a scale needs its size.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from compress.graph.analyse import Analysis, settle
from compress.graph.couplings import Couplings, Pin, operands, varies
from compress.graph.trace import Op


def in_step(analysis: Analysis) -> Analysis | None:
    """Tie heads to runs of the channels that they are computed from; None where there is nothing to tie."""
    ties = _step_ties(analysis.couplings, analysis.component)
    return _tied(analysis, ties) if ties else None


def pinned_at(
    analysis: Analysis, op: Op | None, *, width_only: bool = False, dims: tuple[int, ...] = ()
) -> Analysis | None:
    """Pin what `op` reads, and every operator of the same source line; None where all of it stays already.

    Where it reads nothing (`torch.zeros(n, 4)`), what it makes stays along `dims`.

    `width_only` pins only what the last dimension loses: the width that a softmax scale is computed from. The scale may
    be a tensor, and be applied to scores, in which that dimension is summed already: then it is looked for in what they
    are made from.
    """
    if op is None:
        return None
    op = _applied(analysis, op) if width_only else op
    recorded = analysis.traces[0]
    makers = _makers(analysis)
    parameters = set(recorded.parameters.values())
    ops = _alike(analysis, op)
    labels: list[np.ndarray] = []
    passed: set[int] = set()
    while ops and not labels:
        passed.update(map(id, ops))
        values = {value for other in ops for value in operands(other)} - parameters
        labels = [array.ravel() for value in values for array in _lost(analysis, value, width_only=width_only)]
        back = [makers[value] for value in values if value in makers] if width_only else []
        ops = [other for other in back if id(other) not in passed]
    if not operands(op):
        blocks = [block for out in op.outs for block in analysis.layouts[0].get(out, ())]
        labels = [array.ravel() for at, array in blocks if set(at) & set(dims)]
    return _pinned(analysis, labels, op)


def held_at(analysis: Analysis, last: Op | None) -> Analysis | None:
    """Pin what `last` gave, which what comes next refuses; None where all of it stays already."""
    blocks = [] if last is None else [block for out in last.outs for block in analysis.layouts[0].get(out, ())]
    return _pinned(analysis, [array.ravel() for _, array in blocks], last)


def agreed_at(analysis: Analysis, op: Op | None) -> Analysis | None:
    """Pin what `op` reads with all that its module holds as many of: one number of the code's speaks for all of them.

    None where all of it stays already.
    """
    if op is None or not op.path:
        return None
    recorded, layouts = analysis.traces[0], analysis.layouts[0]
    sizes = {array.size for value in operands(op) for _, array in layouts.get(value, ())}
    inside = [o for o in recorded.ops if o.path == op.path or o.path.startswith(f"{op.path}.")]
    blocks = [block for o in inside for out in o.outs for block in layouts.get(out, ())]
    labels = [array.ravel() for _, array in blocks if array.size in sizes]
    return _pinned(analysis, labels, op)


def _applied(analysis: Analysis, op: Op) -> Op:
    """The first operator on the way of a number (a tensor of one element) that reads anything else."""
    recorded = analysis.traces[0]
    later = itertools.dropwhile(lambda o: o is not op, recorded.ops)
    for reader in later:
        if reader is op or op.outs[0] in operands(reader):
            op = reader
            if not op.outs or any(math.prod(recorded.shapes[v]) != 1 for v in operands(op)):
                break
    return op


def _pinned(analysis: Analysis, labels: list[np.ndarray], op: Op | None) -> Analysis | None:
    """The analysis with these labels pinned; None where all of them stay already."""
    if not labels:
        return None
    pins, pin = analysis.couplings.pins, Pin(np.concatenate(labels), "the network's code computes with this size", op)
    known = {int(c) for one in pins for c in np.unique(analysis.component[one.labels])}
    if known.issuperset(np.unique(analysis.component[pin.labels]).tolist()):
        return None
    return replace(analysis, couplings=replace(analysis.couplings, pins=[*pins, pin]))


def tied_at(analysis: Analysis, last: Op | None) -> Analysis | None:
    """Tie what `last` gave to the channels that it was computed from, where there are as many; None where nothing is.

    What comes next lays it out by a number of theirs (`y.reshape(n, t, x.shape[-1])`). Of several times as many
    (queries, keys and values at once) each run is tied. So does every operator of the same source line.
    """
    if last is None:
        return None
    layouts = analysis.layouts[0]
    given = [
        (value, array)
        for op in _alike(analysis, last)
        for value in op.outs
        for dims, array in layouts.get(value, ())
        if len(dims) == 1
    ]
    tied = _newly_tied(analysis, _ties_to_makers(analysis, given))
    return tied if tied is not None else _newly_tied(analysis, _ties_to_runs(analysis, given))


def evened_at(analysis: Analysis, op: Op | None) -> Analysis | None:
    """Tie equal pieces that `op` and its like cut from one tensor, place by place; None where nothing is left to tie.

    Code that takes a tensor apart by its size (`x[:, : c // 2]`, `x[:, c // 2 :]`) needs pieces of one size.
    """
    if op is None or op.plain not in _PARTING:
        return None
    sources = {operands(other)[0] for other in _alike(analysis, op)} - set(analysis.traces[0].parameters.values())
    return _newly_tied(analysis, [tie for source in sources for tie in _pieces(analysis, source)])


_PARTING = ("aten.slice", "aten.split", "aten.split_with_sizes", "aten.narrow")


def _pieces(analysis: Analysis, source: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ties between the pieces of one size that are cut from a value along a dimension, and have no labels in common."""
    recorded, layouts = analysis.traces[0], analysis.layouts[0]
    cut = [out for op in recorded.ops if op.plain in _PARTING and operands(op)[0] == source for out in op.outs]
    found: dict[tuple[int, int], list[np.ndarray]] = defaultdict(list)
    for out in cut:
        for dims, array in layouts.get(out, ()):
            if len(dims) == 1 and array.size < recorded.shapes[source][dims[0]]:
                found[dims[0], array.size].append(array)
    ties = []
    for first, *others in found.values():
        ties += [(first, other) for other in others if not np.isin(first, other).any()]
    return ties


Given = Sequence[tuple[int, np.ndarray]]
Ties = list[tuple[np.ndarray, np.ndarray]]


def _ties_to_makers(analysis: Analysis, given: Given) -> Ties:
    """Each value's labels, with what weights read that make these very labels, where they read as many."""
    maps = analysis.couplings.maps
    return [(r, array) for _, array in given for r, m in maps if r.size == array.size and np.isin(array, m).all()]


def _ties_to_runs(analysis: Analysis, given: Given) -> Ties:
    """Each run of a value's labels, with what the layers read that made the value."""
    pairs = [(reads, array) for value, array in given for reads in _read_for(analysis, value)]
    return [(np.tile(r, array.size // r.size), array) for r, array in pairs if array.size % r.size == 0]


def _read_for(analysis: Analysis, value: int) -> list[np.ndarray]:
    """The labels that the layers read which made the value, or what it was moved or added up from."""
    makers = _makers(analysis)
    layouts, waiting, seen, found = analysis.layouts[0], [value], {value}, []
    while waiting:
        op = makers.get(waiting.pop())
        if op is None:
            continue
        weights = [{int(array.flat[0]) for _, array in layouts.get(v, ())} for v in operands(op)]
        maps = [reads for reads, makes in analysis.couplings.maps for w in weights if {reads[0], makes[0]} <= w]
        found += maps
        if not maps:
            waiting += [v for v in operands(op) if v not in seen]
            seen.update(operands(op))
    return found


def _alike(analysis: Analysis, op: Op) -> list[Op]:
    """The operator, and those of its name from the same source line."""
    same = op.frame is not None
    return [o for o in analysis.traces[0].ops if o is op or (same and o.name == op.name and o.frame == op.frame)]


def _makers(analysis: Analysis) -> dict[int, Op]:
    """Which operator made each value, not which wrote into it afterwards."""
    return {out: op for op in analysis.traces[0].ops for out in op.outs if out not in operands(op)}


def _newly_tied(analysis: Analysis, ties: list[tuple[np.ndarray, np.ndarray]]) -> Analysis | None:
    """The analysis with these ties; None where they tie nothing that was not."""
    known = all(np.array_equal(analysis.component[one], analysis.component[two]) for one, two in ties)
    return None if known else _tied(analysis, ties)


def _tied(analysis: Analysis, ties: list[tuple[np.ndarray, np.ndarray]]) -> Analysis:
    couplings = replace(analysis.couplings, ties=[*analysis.couplings.ties, *ties])
    return replace(analysis, component=settle(couplings), couplings=couplings)


def _lost(analysis: Analysis, value: int, *, width_only: bool) -> list[np.ndarray]:
    """The labels of the value; with `width_only`, of those blocks that lose something along the last dimension."""
    last = len(analysis.traces[0].shapes[value]) - 1
    blocks = analysis.layouts[0].get(value, ())
    return [a for dims, a in blocks if not width_only or _varies(analysis.component[a], dims, last)]


def _varies(channels: np.ndarray, dims: tuple[int, ...], dim: int) -> bool:
    """Whether different channels lie along `dim`."""
    return dim in dims and bool((channels != np.take(channels, [0], dims.index(dim))).any())


def _once(array: np.ndarray, axis: int) -> np.ndarray:
    """The array without what repeats along `axis`.

    >>> _once(np.array([[3, 4], [5, 6], [3, 4]]), 0).tolist()
    [[3, 4], [5, 6]]
    """
    _, first = np.unique(array, axis=axis, return_index=True)
    return array.take(np.sort(first), axis)


def _step_ties(c: Couplings, component: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """For every block of (heads, width) that a weight made: heads, with runs of what that weight reads."""
    maker = np.full(c.parameter_labels, -1)
    for i, (_, makes) in enumerate(c.maps):
        maker[makes[makes < c.parameter_labels]] = i
    ties = []
    for array in {array.tobytes(): array for array in c.splits}.values():
        now = component[array]
        varying = [a for a in range(array.ndim) if varies(now, a)]
        label = int(array.flat[0])
        if len(varying) != 1 or label >= c.parameter_labels or maker[label] < 0:
            continue
        reads, axis = c.maps[maker[label]][0], varying[0]
        array = _once(array, axis)  # noqa: PLW2901 - heads repeat for every image of a batch that they are joined with
        count = array.shape[axis]
        widths = [a for a in range(array.ndim) if a != axis and array.shape[a] * count == reads.size]
        if widths:
            runs = reads.reshape(count, -1) if axis < widths[-1] else reads.reshape(-1, count).T
            heads = np.moveaxis(array, axis, 0).reshape(count, -1)[:, :1]
            ties.append((np.broadcast_to(heads, runs.shape).ravel(), runs.ravel()))
    return ties
