"""Which groups have the same topology, so that they are ranked among each other only.

Scores of an attention's heads and of a convolution's filters are no numbers of one kind. Isomorphic pruning (Fang et
al., ECCV 2024, arXiv:2407.04616) ranks the structures of one topology among each other, and takes the same share from
every topology. Two groups are of one topology here where the parameters that hold their channels are used by the same
operators, in the same dimensions, alone or several indices a channel (a head), the same number of times.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from compress.core.types import Group
from compress.graph.analyse import Analysis
from compress.graph.couplings import operands

Topology = frozenset[tuple[tuple[str, int, bool, bool], int]]


def topologies(analysis: Analysis, groups: Sequence[Group]) -> list[Topology]:
    """For every group: how often its channels lie in (operators on the parameter, dimension, made or read, wide)."""
    used: dict[str, set[str]] = defaultdict(set)
    for recorded in analysis.traces:
        names = {value: name for name, value in recorded.parameters.items()}
        for op in recorded.ops:
            for value in operands(op):
                if value in names:
                    used[names[value]].add(op.name)
    words = {name: " ".join(sorted(ops)) for name, ops in used.items()}
    return [
        frozenset(
            Counter(
                (words.get(m.parameter, ""), m.dim, m.produces, m.indices.shape[1] > 1) for m in group.members
            ).items()
        )
        for group in groups
    ]
