"""A fraction of the channels: of all of them, ranked over the network (network slimming), or of every pool."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.budget.blocks import Limits, ranked
from compress.budget.choice import Choice, Problem, choose
from compress.core.budgets import Percent
from compress.core.errors import PlanError


@choose.register
def choose_percent(budget: Percent, problem: Problem) -> Choice:
    """Choose `int(total * value)` channels of every pool, as nearly as blocks allow.

    Raises PlanError where nothing can leave, with the reason.
    """
    free, limits = problem.free, problem.limits
    if not free:
        raise PlanError("no channel is free to leave: every group is pinned or kept", fix="`compress inspect` says why")
    settled = [block for number, count in problem.settled.items() for block in problem.blocks[number][:count]]
    gone = [free[b.group].labels[b.channels] for b in settled]
    for pool in problem.pools:
        target = int(sum(free[number].size for number in pool) * budget.value)
        gone += [_of_one(problem, pool[0], target)] if len(pool) == 1 else _of_many(problem, pool, target)
    gone = [channels for channels in gone if len(channels)]
    if not gone:
        total = sum(free[number].size for pool in problem.pools for number in pool)
        if all(group.size == 1 for group in free):
            raise PlanError(
                "nothing can be removed: all channels of a layer leave together or not at all",
                fix="`compress inspect` shows what is tied; grouped convolutions with shuffles are, for example",
            )
        raise PlanError(_why_nothing(budget.value, total, limits), fix="raise --percent, or use --round-to 1")
    return Choice(np.concatenate(gone), sum(g.size for g in free))


def _of_many(problem: Problem, pool: Sequence[int], target: int) -> list[np.ndarray]:
    """The least important channels of these groups, `target` of them as nearly as blocks allow."""
    gone, left = [], 0
    for block in sorted((b for number in pool for b in problem.blocks[number]), key=lambda b: b.score):
        if left >= target:
            break
        size = len(block.channels)
        if left + size / 2 <= target:  # the nearer of with and without this block
            gone.append(problem.free[block.group].labels[block.channels])
            left += size
    return gone


def _of_one(problem: Problem, number: int, target: int) -> np.ndarray:
    """The same of one group, whose blocks are in order: without looking at them one by one."""
    group = problem.free[number]
    order, starts, ends = ranked(group, problem.scores[group.name], problem.limits)
    fits = (starts < target) & (starts + ends <= 2 * target)
    channels: np.ndarray = group.labels[order[: ends[fits][-1] if fits.any() else 0]]
    return channels


def _why_nothing(percent: float, total: int, limits: Limits) -> str:
    if int(total * percent) == 0:
        return f"nothing would be removed: {percent:g} of {total} channels is less than one"
    return (
        f"nothing would be removed: no group can lose channels at multiples of {limits.round_to} "
        f"and keep {limits.min_channels}"
    )
