"""Which slices of which parameters a group's channels occupy: kept as arrays, and a record each for who looks at them.

Every later layer of a dense network reads each of its channels, so the records grow with the square of the depth.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, overload

import numpy as np


class Member(NamedTuple):
    """One dimension of one parameter that a group's channels occupy.

    `indices` is an int64 array of shape (channels, m): channel c is the m slices `indices[c]` of
    dimension `dim`. Rows are sorted; m is 1 for a plain convolution, 49 after a 7 x 7 flatten.
    `produces` is True where the slices hold what computes the channel (a filter, a bias, a norm's scale), False
    where they hold what reads it (a consumer's input columns).
    """

    parameter: str
    dim: int
    indices: np.ndarray
    produces: bool


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """Dimensions of parameters that hold channels: their labels are consecutive, from `starts[s]` until `ends[s]`."""

    names: tuple[tuple[str, int], ...]
    starts: np.ndarray
    ends: np.ndarray


def along(heads: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Runs of consecutive numbers, of `sizes` (runs,), that begin with `heads` (..., runs): (..., sum of sizes).

    >>> along(np.array([10, 20]), np.array([2, 3])).tolist()
    [10, 11, 20, 21, 22]
    """
    before = np.cumsum(sizes) - sizes
    return np.repeat(heads - before, sizes, axis=-1) + np.arange(sizes.sum())


@dataclass(frozen=True, eq=False)
class Members(Sequence[Member]):
    """The members of a group, a record each, made when they are looked at.

    Channels lie in runs of `sizes[r]`, and in the same places: place p of run r holds the labels from `heads[p, r]` on,
    which belong to slot `slot[p]`, in rising order; `reads[p]` tells that it holds what reads the channels. A member is
    the places in one slot.

    >>> slots = Slots((("conv.weight", 0), ("head.weight", 1)), np.array([1, 4]), np.array([4, 7]))
    >>> members = Members(slots, np.array([0, 1]), np.array([[1], [4]]), np.array([3]), np.array([False, True]))
    >>> members.labels(np.array([1])).tolist()
    [[4, 5, 6]]
    >>> members[1].parameter, members[1].dim, members[1].indices.ravel().tolist(), members[1].produces
    ('head.weight', 1, [0, 1, 2], False)
    """

    slots: Slots
    slot: np.ndarray
    heads: np.ndarray
    sizes: np.ndarray
    reads: np.ndarray

    def labels(self, places: np.ndarray) -> np.ndarray:
        """The labels of all channels in these places: (places, channels)."""
        return along(self.heads[places], self.sizes)

    @cached_property
    def firsts(self) -> np.ndarray:
        """The first place of every member."""
        return np.flatnonzero(np.r_[True, self.slot[1:] != self.slot[:-1]])

    @property
    def maker(self) -> str:
        """The parameter that first makes the channels; the first of all where they are only read."""
        place = int(self.firsts[self.reads[self.firsts].argmin()])
        return self.slots.names[int(self.slot[place])][0]

    @cached_property
    def _made(self) -> tuple[Member, ...]:
        slots, numbers = self.slots, self.slot[self.firsts]
        indices = along(self.heads - slots.starts[self.slot][:, None], self.sizes).T
        spans = itertools.pairwise([*self.firsts.tolist(), len(self.slot)])
        names = [slots.names[number] for number in numbers.tolist()]
        reads = self.reads[self.firsts].tolist()
        return tuple(
            Member(name, dim, indices[:, a:b], not read)
            for (name, dim), read, (a, b) in zip(names, reads, spans, strict=True)
        )

    def __len__(self) -> int:
        """How many members there are."""
        return len(self.firsts)

    @overload
    def __getitem__(self, index: int) -> Member: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Member, ...]: ...
    def __getitem__(self, index: int | slice) -> Member | tuple[Member, ...]:
        """Members by number, in the order of the network's parameters."""
        return self._made[index]

    def __iter__(self) -> Iterator[Member]:
        """All members."""
        return iter(self._made)
