"""Channels leave in blocks, so that widths stay at multiples of what the runtime's kernels work in.

Within a group channels are sorted by score; the least important ones form the first block, whose size brings the width
to a multiple, and every further block has the size of one multiple. With multiples of 1 every channel is a block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np

from compress.core.errors import UsageError
from compress.core.types import Group


@dataclass(frozen=True, slots=True)
class Limits:
    """What a cut respects: widths at multiples of `round_to`, `min_channels` a group, `keep` globs stay whole.

    `ratios` are (glob, fraction): groups that the glob names lose that fraction, whatever the budget; of several globs
    the last one speaks. No group loses more than the fraction `max_ratio`. `sizes` are the widths that both are of,
    by group, where channels have left before; the group's own otherwise.
    """

    round_to: int = 1
    min_channels: int = 1
    keep: tuple[str, ...] = ()
    ratios: tuple[tuple[str, float], ...] = ()
    max_ratio: float = 1.0
    sizes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is no fraction."""
        for glob, fraction in self.ratios:
            if not 0 <= fraction < 1:
                raise UsageError(
                    f"--ratio {glob}={fraction:g}: the fraction must be in [0, 1)", fix="--ratio 'layer3.*=0.3'"
                )
        if not 0 <= self.max_ratio <= 1:
            raise UsageError(f"--max-ratio must be in [0, 1], got {self.max_ratio:g}", fix="for example 0.9")

    def least(self, group: Group) -> int:
        """How many channels the group keeps at least."""
        size = self.sizes.get(group.name, group.size)
        return max(self.min_channels, 1, size - int(size * self.max_ratio + 1e-9))

    def asked_of(self, group: Group) -> int | None:
        """How many channels a ratio takes from the group now; None where no glob names it."""
        fractions = [fraction for glob, fraction in self.ratios if makes(group, glob)]
        size = self.sizes.get(group.name, group.size)
        return max(int(size * fractions[-1] + 1e-9) - (size - group.size), 0) if fractions else None


class Block(NamedTuple):  # there are as many as channels, and a frozen dataclass takes three times as long to make
    """Channels of one group that leave together: indices into the group, and their mean score."""

    group: int
    channels: np.ndarray
    score: float


def protected(group: Group, keep: Sequence[str]) -> bool:
    """Whether a glob names one of the group's parameters or the module that owns it."""
    if not keep:
        return False
    names = {name for m in group.members for name in (m.parameter, m.parameter.rpartition(".")[0])}
    return any(fnmatchcase(name, pattern) for pattern in keep for name in names)


def makes(group: Group, pattern: str) -> bool:
    """Whether a glob names a parameter that makes the group's channels, or the module that owns it."""
    names = {name for m in group.members if m.produces for name in (m.parameter, m.parameter.rpartition(".")[0])}
    return any(fnmatchcase(name, pattern) for name in names)


def unit(group: Group, round_to: int) -> int:
    """How many channels make one multiple: a channel that is several indices wide (a head) brings its own factor."""
    if round_to == 1:
        return 1
    widths = [m.indices.shape[1] for m in group.members if m.produces] or [1]
    return round_to // math.gcd(round_to, min(widths))


class Ranked(NamedTuple):
    """Channels of one group, least important first: block b is `order[starts[b]:ends[b]]`."""

    order: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def ranked(group: Group, scores: np.ndarray, limits: Limits) -> Ranked:
    """Rank the group's channels and cut them into the blocks that may leave, least important first."""
    step = unit(group, limits.round_to)
    smallest = -(-limits.least(group) // step) * step
    ends = np.arange(group.size % step or step, group.size - smallest + 1, step)
    starts = np.concatenate([np.zeros(1, dtype=np.int64), ends])[: len(ends)]
    return Ranked(np.argsort(scores, kind="stable"), starts, ends)


def blocks_of(number: int, group: Group, scores: np.ndarray, limits: Limits) -> list[Block]:
    """The blocks that may leave, least important first."""
    order, starts, ends = ranked(group, scores, limits)
    if not len(ends):
        return []
    sums = np.add.reduceat(scores[order[: ends[-1]]], starts)
    spans = zip(starts.tolist(), ends.tolist(), sums.tolist(), strict=True)
    return [Block(number, order[start:end], total / (end - start)) for start, end, total in spans]


def nearest(blocks: Sequence[Block], target: int) -> int:
    """How many of the blocks, in their order, bring the number of channels nearest to `target`."""
    sums = np.cumsum([0, *(len(block.channels) for block in blocks)])
    return int(np.abs(sums - target).argmin())
