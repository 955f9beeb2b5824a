"""Blocks of channels on shelves, a shelf a group: the least important leaves first, the last to leave comes back first.

A block's price is the importance that is lost for each unit of cost that is saved.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from compress.budget.blocks import Block
from compress.budget.meter import Meter
from compress.core.types import Group

# How far below a budget the result may end, as a share of the budget, if blocks are fine enough.
TOLERANCE = 0.01
# How many blocks that are too coarse to end with are exchanged for finer ones before the best exchange is taken.
EXCHANGES = 6


@dataclass
class Shelves:
    """The blocks of every group in the order in which they leave, and how many of them have left.

    Scores compare over the network. `order`, where given, ranks blocks by itself (a number a block, rising within a
    group) and costs have no say in the order.
    """

    meter: Meter
    groups: Sequence[Group]
    blocks: Sequence[Sequence[Block]]
    order: Sequence[Sequence[float]] | None = None

    def __post_init__(self) -> None:
        """Nothing has left."""
        self.left = [0] * len(self.groups)
        self.lost = 0.0

    def next(self, number: int) -> np.ndarray | None:
        """The channels of the block that would leave next; None where the shelf is empty."""
        return self._channels(number, self.left[number]) if self.left[number] < len(self.blocks[number]) else None

    def last(self, number: int) -> np.ndarray | None:
        """The channels of the block that left last; None where none has."""
        return self._channels(number, self.left[number] - 1) if self.left[number] else None

    def take(self, number: int) -> None:
        """Let the shelf's next block leave."""
        self.meter.remove(self._channels(number, self.left[number]))
        self.lost += self._loss(number, self.left[number])
        self.left[number] += 1

    def put_back(self, number: int) -> None:
        """Let the block that left the shelf last come back."""
        self.left[number] -= 1
        self.lost -= self._loss(number, self.left[number])
        self.meter.put_back(self._channels(number, self.left[number]))

    def price_out(self, number: int) -> float:
        """Price of the next block; infinite where it saves nothing."""
        place = self.left[number]
        if self.order is not None:
            return self.order[number][place]
        saved = self.meter.saving(self._channels(number, place))
        return self._loss(number, place) / saved if saved > 0 else math.inf

    def price_back(self, number: int) -> float:
        """Price of the block that left last; infinite where its return costs nothing."""
        place = self.left[number] - 1
        if self.order is not None:
            return self.order[number][place]
        cost = self.meter.returning(self._channels(number, place))
        return self._loss(number, place) / cost if cost > 0 else math.inf

    def gone(self) -> np.ndarray:
        """All channels that have left."""
        parts = [self._channels(n, place) for n, left in enumerate(self.left) for place in range(left)]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def restore(self, left: Sequence[int]) -> None:
        """Go back, or on, to a state that `left` once described."""
        for number, count in enumerate(left):
            while self.left[number] > count:
                self.put_back(number)
            while self.left[number] < count:
                self.take(number)

    def _channels(self, number: int, place: int) -> np.ndarray:
        channels: np.ndarray = self.groups[number].labels[self.blocks[number][place].channels]
        return channels

    def _loss(self, number: int, place: int) -> float:
        block = self.blocks[number][place]
        return block.score * len(block.channels)


def cut_to(shelves: Shelves, target: float) -> bool:
    """Let blocks leave until at most `target` is left; then let come back what fits. False where it cannot be met.

    The cheapest block leaves first. As savings only fall, a block that is still the cheapest with its new saving is the
    best one. Where more than `TOLERANCE` of the target stays unspent after what fits has come back, a coarse block is
    exchanged for finer ones that leave in its place.
    """
    _lower(shelves, target, floor=0.0)
    if shelves.meter.total > target:
        return False
    fill(shelves, target)
    if target - shelves.meter.total > TOLERANCE * target:
        _exchange(shelves, target)
    return True


def _lower(shelves: Shelves, target: float, floor: float, without: int | None = None) -> None:
    """Take the cheapest blocks until at most `target` is left, skipping those that would leave less than `floor`."""
    numbers = [n for n in range(len(shelves.groups)) if shelves.next(n) is not None and n != without]
    queue = [(shelves.price_out(n), n, 0) for n in numbers]  # price, shelf, how many had left when it was asked for
    heapq.heapify(queue)
    taken = 0
    while queue and shelves.meter.total > target:
        price, number, then = heapq.heappop(queue)
        now = price if then == taken else shelves.price_out(number)
        if queue and now > queue[0][0]:
            heapq.heappush(queue, (now, number, taken))
            continue
        channels = shelves.next(number)
        assert channels is not None
        if floor > 0 and shelves.meter.total - shelves.meter.saving(channels) < floor:
            continue
        shelves.take(number)
        taken += 1
        if shelves.next(number) is not None:
            heapq.heappush(queue, (shelves.price_out(number), number, taken))


def fill(shelves: Shelves, target: float, stays: Callable[[int], int] = lambda _: 0) -> None:
    """Let the dearest blocks come back as long as at most `target` is left; `stays(group)` blocks stay away.

    Returns only become cheaper per cost as neighbours return, so a block that is still the dearest is the best one.
    """

    def may(number: int) -> bool:
        return shelves.left[number] > stays(number)

    queue = [(-shelves.price_back(n), n) for n in range(len(shelves.groups)) if may(n)]
    heapq.heapify(queue)
    while queue:
        _, number = heapq.heappop(queue)
        now = -shelves.price_back(number)
        if queue and now > queue[0][0]:
            heapq.heappush(queue, (now, number))
            continue
        channels = shelves.last(number)
        assert channels is not None
        if shelves.meter.total + shelves.meter.returning(channels) > target:
            continue
        shelves.put_back(number)
        if may(number):
            heapq.heappush(queue, (-shelves.price_back(number), number))


def _exchange(shelves: Shelves, target: float) -> None:
    """Put one coarse block back and take finer ones in its place; keep what ends nearest, then what costs least."""
    floor = (1 - TOLERANCE) * target

    def rank() -> tuple[float, float]:
        return max(floor - shelves.meter.total, 0.0), shelves.lost

    start = list(shelves.left)
    best, kept = rank(), start
    coarse = [(shelves.meter.returning(last), n) for n in range(len(start)) if (last := shelves.last(n)) is not None]
    for _, number in sorted(coarse)[:EXCHANGES]:
        shelves.put_back(number)
        _lower(shelves, target, floor=floor, without=number)
        if shelves.meter.total <= target:
            fill(shelves, target)
            if (found := rank()) < best:
                best, kept = found, list(shelves.left)
        shelves.restore(start)
    shelves.restore(kept)
