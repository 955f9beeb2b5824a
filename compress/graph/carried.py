"""What every group carries: the MACs and the parameters that would vanish if all of its channels left.

With S the shapes before and S_g the shapes once every channel of group g has left,
    macs(g)       = sum over operators of MACs(S) - MACs(S_g)
    parameters(g) = sum over parameters of numel(S) - numel(S_g)
A layer between two groups vanishes with either, and is counted in both: shares of a network add up to more than one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from compress.core.types import Group
from compress.graph.analyse import Analysis
from compress.graph.costs import batch_of, macs_by_op, macs_of
from compress.graph.couplings import operands
from compress.graph.rewrite import Sizes
from compress.graph.trace import Op

Told = Callable[[int, int], None]


def macs_carried(analysis: Analysis, groups: Sequence[Group], told: Told | None = None) -> tuple[int, ...]:
    """MACs of one input that vanish when all channels of a group leave, one number a group.

    `told(done, total)` is called after every group.
    """
    recorded, layouts = analysis.traces[0], analysis.layouts[0]
    before = macs_by_op(recorded)
    owner = np.full(analysis.channels, -1)
    for i, group in enumerate(groups):
        owner[group.labels] = i
    touching: list[list[tuple[Op, int]]] = [[] for _ in groups]
    for op, count in before:
        for i in _owners(analysis, op, owner):
            touching[i].append((op, count))
    batch = batch_of(recorded)
    carried = []
    for i, group in enumerate(groups):
        gone = np.zeros(analysis.channels, dtype=bool)
        gone[group.labels] = True
        dead = gone[analysis.component]
        dead[0] = False  # label 0 fills what is fixed, it is nobody's channel
        sizes = Sizes(recorded.shapes, layouts, dead)
        carried.append(sum(count - macs_of(op, sizes.after) for op, count in touching[i]) // batch)
        if told is not None:
            told(i + 1, len(groups))
    return tuple(carried)


def _owners(analysis: Analysis, op: Op, owner: np.ndarray) -> list[int]:
    """Numbers of the groups whose channels are in what the operator reads or makes."""
    found: set[int] = set()
    for value in {*operands(op), *op.outs}:
        for _, array in analysis.layouts[0].get(value, ()):
            found.update(np.unique(owner[analysis.component[array]]).tolist())
    found.discard(-1)
    return sorted(found)


def parameters_carried(analysis: Analysis, group: Group) -> int:
    """Number of parameter elements (buffers not counted) that vanish when all channels of the group leave."""
    left: dict[str, list[int]] = {}
    for member in group.members:
        if isinstance(analysis.tensors[member.parameter], nn.Parameter):
            shape = left.setdefault(member.parameter, list(analysis.shapes[member.parameter]))
            shape[member.dim] -= member.indices.size
    return sum(math.prod(analysis.shapes[name]) - math.prod(shape) for name, shape in left.items())


def output_dims(analysis: Analysis) -> dict[str, int]:
    """Parameter name -> the dimension that runs over its output channels, for weights of convolutions and products."""
    consumed = np.zeros(analysis.couplings.count, dtype=bool)
    for labels in analysis.couplings.consumed:
        consumed[labels] = True
    weights = {
        op.args[1].value for t in analysis.traces for op in t.ops if op.name == "aten.convolution"
    }  # a depthwise weight reads no channels through a dimension of its own
    numbers = {name: value for t in analysis.traces for name, value in t.parameters.items()}
    found: dict[str, int] = {}
    for name, dims in analysis.parameters.items():
        reads = [labels is not None and bool(consumed[labels].any()) for labels in dims]
        if len(dims) > 1 and (any(reads) or numbers.get(name) in weights):
            made = next((d for d, read in enumerate(reads) if not read and dims[d] is not None), None)
            if made is not None:
                found[name] = made
    return found
