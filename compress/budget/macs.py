"""As many MACs as one can afford: blocks leave in the order of importance per MAC saved, until the budget is met.

What a block saves shrinks as its neighbours shrink (a convolution costs inputs x outputs), so savings are computed
again when a block comes to the head of the queue. As savings only fall, a block that is still first with its new
saving is the best one.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from compress.budget.blocks import Block, Limits, blocks_of, protected
from compress.budget.percent import Choice
from compress.core.errors import PlanError, UsageError
from compress.core.types import Group
from compress.graph.analyse import Analysis
from compress.graph.costs import batch_of, macs_by_op, macs_of
from compress.graph.couplings import operands
from compress.graph.trace import Op
from compress.importance import Scores

# How far below the budget the result may end, as a share of the original's MACs, if blocks are fine enough.
TOLERANCE = 0.01
# How much dearer than a block too coarse to end with the finer blocks may be that are taken in its place.
FINER = 2.0


class Meter:
    """MACs of a network as channels leave: an extent is a count of live channels, an operator a product of extents."""

    def __init__(self, analysis: Analysis) -> None:
        """Count every labelled extent of the operators that multiply, once."""
        recorded, layouts = analysis.traces[0], analysis.layouts[0]
        self.batch = batch_of(recorded)
        self.shapes: dict[int, list[int]] = {}
        self.places: dict[int, list[tuple[int, int, int]]] = defaultdict(list)  # channel -> (value, dimension, times)
        self.readers: dict[int, list[int]] = defaultdict(list)  # value -> operators
        self.ops: list[Op] = []
        self.costs: list[int] = []
        for op, cost in macs_by_op(recorded):
            number = len(self.ops)
            self.ops.append(op)
            self.costs.append(cost)
            for value in {*operands(op), *op.outs}:
                self.readers[value].append(number)
                if value in self.shapes:
                    continue
                self.shapes[value] = list(recorded.shapes[value])
                for dims, labels in layouts.get(value, ()):
                    if len(dims) == 1:
                        channels, times = np.unique(analysis.component[labels], return_counts=True)
                        for channel, count in zip(channels.tolist(), times.tolist(), strict=True):
                            self.places[channel].append((value, dims[0], count))
        self.total = sum(self.costs)

    def remove(self, channels: np.ndarray) -> int:
        """Let the channels leave; return the MACs that this saves, at the traced batch size."""
        return self._change(channels, -1)

    def put_back(self, channels: np.ndarray) -> int:
        """Undo `remove`; return the MACs that come back, at the traced batch size."""
        return -self._change(channels, 1)

    def _change(self, channels: np.ndarray, sign: int) -> int:
        touched: set[int] = set()
        for channel in channels.tolist():
            for value, dim, count in self.places[channel]:
                self.shapes[value][dim] += sign * count
                touched.update(self.readers[value])
        saved = 0
        for number in touched:
            new = macs_of(self.ops[number], lambda value: tuple(self.shapes[value]))
            saved += self.costs[number] - new
            self.costs[number] = new
        self.total -= saved
        return saved

    def saving(self, channels: np.ndarray) -> int:
        """MACs that would be saved if the channels left now."""
        saved = self.remove(channels)
        self.put_back(channels)
        return saved


def choose_macs(analysis: Analysis, groups: Sequence[Group], scores: Scores, budget: float, limits: Limits) -> Choice:
    """Choose channels so that at most `budget` MACs are left: a fraction of the original's where it is at most 1.

    The result is as near below the budget as blocks allow. Raises UsageError for a budget that is not positive,
    PlanError where the budget cannot be met, with what can, or where it asks for nothing.
    """
    meter = Meter(analysis)
    if budget <= 0:
        raise UsageError(
            f"--macs must be positive, got {budget:g}", fix="--macs 0.5 leaves half of them, --macs 900M so many"
        )
    start = meter.total
    target = budget * start if budget <= 1 else budget * meter.batch
    if start <= target:
        raise PlanError(f"the network has only {start // meter.batch:,} MACs: nothing has to leave", fix="lower --macs")
    free = [g for g in groups if g.prunable and g.name in scores and not protected(g, limits.keep)]
    waiting = [blocks_of(i, g, scores[g.name], limits)[::-1] for i, g in enumerate(free)]
    gone = _until(meter, free, waiting, _masses(meter, free, waiting, scores), target)
    if meter.total > target:
        least = meter.total / start
        raise PlanError(
            f"--macs {budget:g} cannot be met: at least {meter.total // meter.batch:,} MACs ({least:.2f}) have to stay",
            fix="raise it, keep less, or use --round-to 1",
        )
    return Choice(np.concatenate(gone), sum(g.size for g in free))


def _until(
    meter: Meter, free: Sequence[Group], waiting: list[list[Block]], masses: Sequence[float], target: float
) -> list[np.ndarray]:
    slack = TOLERANCE * meter.total
    queue: list[tuple[float, int]] = []
    gone: list[np.ndarray] = []

    def price(number: int) -> float:
        """Importance lost for each MAC saved; a block that saves none comes last."""
        block = waiting[number][-1]
        saved = meter.saving(free[number].labels[block.channels])
        return masses[number] * block.score * len(block.channels) / saved if saved > 0 else math.inf

    def enter(number: int) -> None:
        if waiting[number]:
            heapq.heappush(queue, (price(number), number))

    for number in range(len(free)):
        enter(number)
    dearest = math.inf
    while queue and meter.total > target:
        _, number = heapq.heappop(queue)
        now = price(number)
        if now > dearest:
            break
        if queue and now > queue[0][0]:
            heapq.heappush(queue, (now, number))
            continue
        channels = free[number].labels[waiting[number][-1].channels]
        if meter.total - meter.saving(channels) < target - slack:
            dearest = min(dearest, FINER * now)  # too coarse to end with: finer blocks may do, at a price near its own
            continue
        waiting[number].pop()
        meter.remove(channels)
        gone.append(channels)
        enter(number)
    if meter.total > target and (last := _smallest(meter, free, waiting, target)) is not None:
        meter.remove(last)
        gone.append(last)
    return gone


def _masses(meter: Meter, free: Sequence[Group], waiting: Sequence[list[Block]], scores: Scores) -> list[float]:
    """What a score of 1 weighs in each group.

    Scores whose mean is 1 in every group rank within a group only: there a group weighs what its channels cost, so that
    a channel of average score is worth what it saves. Other scores are compared over the network as they are.
    """
    if not all(math.isclose(float(scores[g.name].mean()), 1.0, rel_tol=1e-6) for g in free):
        return [1.0] * len(free)
    first = [(g, blocks[-1].channels) for g, blocks in zip(free, waiting, strict=True) if blocks]
    saved = {g.name: meter.saving(g.labels[channels]) / len(channels) for g, channels in first}
    return [saved.get(g.name, 0.0) for g in free]


def _smallest(meter: Meter, free: Sequence[Group], waiting: list[list[Block]], target: float) -> np.ndarray | None:
    """The one block that meets the budget with the least to spare, None where there is none."""
    best, least = None, meter.total
    for group, blocks in zip(free, waiting, strict=True):
        if blocks:
            channels = group.labels[blocks[-1].channels]
            saved = meter.saving(channels)
            if saved <= least and meter.total - saved <= target:
                best, least = channels, saved
    return best
