"""Where a network reads channels: every convolution and linear layer whose weight is a parameter of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from compress.graph.analyse import Analysis
from compress.graph.couplings import operands
from compress.graph.rewrite import Sizes
from compress.graph.rules.table import arguments
from compress.graph.trace import Op, Ref, Trace
from compress.recovery.samples import Sliding
from compress.surgery.cut import kept_indices, sizes_after

_TURNS = ("aten.t", "aten.transpose", "aten.permute", "aten.numpy_T")
_SAME = ("aten.detach", "aten.alias", "aten._to_copy")


@dataclass(frozen=True, slots=True)
class Consumer:
    """A weight that reads channels, and what a cut leaves of what it reads.

    `inputs` is the dimension of the weight that runs over what it reads, `groups` the groups of a convolution once the
    cut is made. `entering` are the channels of the uncut input that the kept groups read (None: all). `kept` are the
    kept indices of dimension `inputs`, `made` those of the weight's other dimension (None: all). `sliding` is None for
    matrices and transposed convolutions. `bias` is the layer's own. A constant added to the result goes to the
    parameter `shift`, times `sign`: the bias, or with -1 the running mean of the batch norm behind; where `shift` is
    None the layer cannot hold one.
    """

    name: str
    inputs: int
    groups: int
    uses: int
    convolution: bool
    sliding: Sliding | None
    entering: np.ndarray | None
    kept: np.ndarray | None
    made: np.ndarray | None
    bias: str | None
    shift: str | None
    sign: int


def consumers(analysis: Analysis, dead: np.ndarray) -> tuple[Consumer, ...]:
    """Every layer that can take up what its input loses, in the order of the first use.

    Left out are weights that are computed (weight norm), used otherwise as well (tied embeddings), or in
    several ways.
    """
    trace, sizes = analysis.traces[0], sizes_after(analysis, dead)
    kept = kept_indices(analysis, dead)
    names = {value: name for name, value in trace.parameters.items()}
    views, read_by = _views(trace, names), _readers(trace)
    found: dict[str, list[Op]] = {}
    for op in trace.ops:
        weight = _weight(op)
        if weight in views:
            found.setdefault(views[weight][0], []).append(op)
    result = []
    for name, ops in found.items():
        ways = {(views[_weight(op)][1], *_way(op)) for op in ops}
        uses = sum(len([r for r in read_by.get(v, ()) if r.name not in (*_TURNS, *_SAME)]) for v in _all(views, name))
        if len(ways) != 1 or uses != len(ops):
            continue
        own = _bias(ops[0])
        if own is not None and own not in names:
            continue  # a bias that is computed
        consumer = _consumer(analysis, name, ops, views[_weight(ops[0])][1], sizes, kept)
        if consumer is not None:
            consumer = replace(consumer, bias=None if own is None else names[own])
            result.append(_with_shift(consumer, ops, analysis, names, read_by))
    return tuple(result)


def _all(views: Mapping[int, tuple[str, bool]], name: str) -> list[int]:
    return [value for value, (owner, _) in views.items() if owner == name]


def _views(trace: Trace, names: Mapping[int, str]) -> dict[int, tuple[str, bool]]:
    """Values that are a parameter, or one of two dimensions turned: -> (its name, whether turned)."""
    views = {value: (name, False) for value, name in names.items()}
    for op in trace.ops:
        if op.name in (*_TURNS, *_SAME) and op.args and isinstance(op.args[0], Ref) and op.args[0].value in views:
            name, turned = views[op.args[0].value]
            if op.name in _SAME:
                views[op.outs[0]] = (name, turned)
            elif len(trace.shapes[op.outs[0]]) == 2:
                views[op.outs[0]] = (name, turned ^ (op.name != "aten.permute" or list(op.args[1]) == [1, 0]))
    return views


def _readers(trace: Trace) -> dict[int, list[Op]]:
    readers: dict[int, list[Op]] = {}
    for op in trace.ops:
        for value in operands(op):
            readers.setdefault(value, []).append(op)
    return readers


def _weight(op: Op) -> int:
    """The value that the operator multiplies with; -1 where it does not multiply."""
    at = {"aten.convolution": 1, "aten._convolution": 1, "aten.mm": 1, "aten.addmm": 2}.get(op.name)
    item = None if at is None else op.args[at]
    return item.value if isinstance(item, Ref) else -1


def _bias(op: Op) -> int | None:
    """The value that is added to the product; None where there is none."""
    item = op.args[0] if op.name == "aten.addmm" else arguments(op).get("bias")
    return item.value if isinstance(item, Ref) else None


def _way(op: Op) -> tuple[bool, int, str]:
    """Whether it is a transposed convolution, its groups, and how its kernel moves."""
    a = arguments(op)
    moves = str([a.get(key) for key in ("stride", "padding", "dilation")])
    return bool(a.get("transposed", False)), int(a.get("groups", 1)), moves


def _consumer(
    analysis: Analysis,
    name: str,
    ops: list[Op],
    turned: bool,
    sizes: Sizes,
    kept: Mapping[str, Mapping[int, np.ndarray]],
) -> Consumer | None:
    op = ops[0]
    convolution = op.name.endswith("convolution")
    transposed, groups, _ = _way(op)
    if (transposed and groups > 1) or any(_loses_rows(op, sizes) for op in ops):
        return None
    inputs = int(not transposed) if convolution else int(turned)
    mine = kept.get(name, {})
    entering = None
    if groups > 1 and inputs not in mine:  # whole groups leave, or none
        read = op.args[0]
        mask = sizes.alive(read.value, 1) if isinstance(read, Ref) else None
        entering = None if mask is None else np.flatnonzero(mask)
        if entering is not None:
            groups = groups * len(entering) // len(mask)  # type: ignore[arg-type]
    sliding = Sliding.of(analysis.shapes[name][2:], arguments(op)) if convolution and not transposed else None
    kept_in, kept_out = mine.get(inputs), mine.get(1 - inputs)
    return Consumer(name, inputs, groups, len(ops), convolution, sliding, entering, kept_in, kept_out, None, None, 1)


def _loses_rows(op: Op, sizes: Sizes) -> bool:
    """Whether a matrix is multiplied with what has fewer rows after the cut: another weight (low-rank updates)."""
    if op.name.endswith("convolution"):
        return False
    reads = op.args[int(op.name == "aten.addmm")]
    return isinstance(reads, Ref) and sizes.after(reads.value)[0] != sizes.shapes[reads.value][0]


def _with_shift(
    consumer: Consumer, ops: list[Op], analysis: Analysis, names: Mapping[int, str], read_by: Mapping[int, list[Op]]
) -> Consumer:
    """Find the parameter that can take up a constant: the layer's own bias, or the mean of the batch norm behind it."""
    if bool(arguments(ops[0]).get("transposed")):
        return consumer  # its taps do not all meet every output
    holders, sign = set(), 1
    for op in ops:
        holder = _bias(op)
        if holder is None:
            after = read_by.get(op.outs[0], [])
            mean = arguments(after[0]).get("running_mean") if after and "batch_norm" in after[0].name else None
            holder, sign = mean.value if isinstance(mean, Ref) and len(after) == 1 else None, -1
        if holder is None or holder not in names or len(read_by[holder]) != len(ops):
            return consumer
        holders.add(names[holder])
    out = analysis.shapes[consumer.name][1 - consumer.inputs]
    if len(holders) != 1 or analysis.shapes[next(iter(holders))] != (out,):
        return consumer
    return replace(consumer, shift=holders.pop(), sign=sign)
