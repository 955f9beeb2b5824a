"""A fraction of the channels: of all of them, ranked over the network (network slimming), or of every pool."""

from __future__ import annotations

import numpy as np

from compress.budget.blocks import Limits
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
    gone = [block for number, count in problem.settled.items() for block in problem.blocks[number][:count]]
    for pool in problem.pools:
        target = int(sum(free[number].size for number in pool) * budget.value)
        left = 0
        for block in sorted((b for number in pool for b in problem.blocks[number]), key=lambda b: b.score):
            if left >= target:
                break
            size = len(block.channels)
            if left + size / 2 <= target:  # the nearer of with and without this block
                gone.append(block)
                left += size
    if not gone:
        total = sum(free[number].size for pool in problem.pools for number in pool)
        raise PlanError(_why_nothing(budget.value, total, limits), fix="raise --percent, or use --round-to 1")
    return Choice(np.concatenate([free[b.group].labels[b.channels] for b in gone]), sum(g.size for g in free))


def _why_nothing(percent: float, total: int, limits: Limits) -> str:
    if int(total * percent) == 0:
        return f"nothing would be removed: {percent:g} of {total} channels is less than one"
    return (
        f"nothing would be removed: no group can lose channels at multiples of {limits.round_to} "
        f"and keep {limits.min_channels}"
    )
