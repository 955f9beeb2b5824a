"""Channels leave in blocks, so that widths stay at multiples of what the runtime's kernels work in.

Within a group channels are sorted by score; the least important ones form the first block, whose size brings the width
to a multiple, and every further block has the size of one multiple. With multiples of 1 every channel is a block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from compress.core.types import Group


@dataclass(frozen=True, slots=True)
class Limits:
    """What a cut respects: widths at multiples of `round_to`, `min_channels` a group, `keep` globs stay whole."""

    round_to: int = 1
    min_channels: int = 1
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """Channels of one group that leave together: indices into the group, and their mean score."""

    group: int
    channels: np.ndarray
    score: float


def protected(group: Group, keep: Sequence[str]) -> bool:
    """Whether a glob names one of the group's parameters or the module that owns it."""
    names = {name for m in group.members for name in (m.parameter, m.parameter.rpartition(".")[0])}
    return any(fnmatchcase(name, pattern) for pattern in keep for name in names)


def unit(group: Group, round_to: int) -> int:
    """How many channels make one multiple: a channel that is several indices wide (a head) brings its own factor."""
    widths = [m.indices.shape[1] for m in group.members if m.produces] or [1]
    return round_to // math.gcd(round_to, min(widths))


def blocks_of(number: int, group: Group, scores: np.ndarray, limits: Limits) -> list[Block]:
    """The blocks that may leave, least important first."""
    step = unit(group, limits.round_to)
    order = np.argsort(scores, kind="stable")
    smallest = -(-max(limits.min_channels, 1) // step) * step
    starts = [0, *range(group.size % step or step, group.size, step)]
    ends = [end for end in (*starts[1:], group.size) if group.size - end >= smallest]
    if not ends:
        return []
    sums = np.add.reduceat(scores[order[: ends[-1]]], starts[: len(ends)])
    spans = zip(starts, ends, sums.tolist(), strict=False)
    return [Block(number, order[start:end], total / (end - start)) for start, end, total in spans]
