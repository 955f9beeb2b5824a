"""A fraction of the channels: of all of them, ranked over the network (network slimming), or of each group."""

from __future__ import annotations

import numpy as np

from compress.budget.blocks import Limits, blocks_of
from compress.budget.choice import Choice, Problem, choose
from compress.core.budgets import Percent
from compress.core.errors import PlanError
from compress.core.types import Scope


@choose.register
def choose_percent(budget: Percent, problem: Problem) -> Choice:
    """Choose `int(total * value)` channels, as nearly as blocks allow.

    Raises PlanError where nothing can leave, with the reason.
    """
    free, limits = problem.free, problem.limits
    total = sum(g.size for g in free)
    if not free:
        raise PlanError("no channel is free to leave: every group is pinned or kept", fix="`compress inspect` says why")
    ranked = [blocks_of(i, g, problem.scores[g.name], limits) for i, g in enumerate(free)]
    if problem.scope is Scope.GLOBAL:
        every = sorted((b for blocks in ranked for b in blocks), key=lambda b: b.score)
        pools = [(int(total * budget.value), every)]
    else:
        pools = [(int(g.size * budget.value), blocks) for g, blocks in zip(free, ranked, strict=True)]
    gone: list[np.ndarray] = []
    for target, blocks in pools:
        left = 0
        for block in blocks:
            size = len(block.channels)
            if left + size / 2 > target or left >= target:  # the nearer of with and without this block
                if problem.scope is Scope.LAYER or left >= target:
                    break
                continue
            gone.append(free[block.group].labels[block.channels])
            left += size
    if not gone:
        raise PlanError(_why_nothing(budget.value, total, limits), fix="raise --percent, or use --round-to 1")
    return Choice(np.concatenate(gone), total)


def _why_nothing(percent: float, total: int, limits: Limits) -> str:
    if int(total * percent) == 0:
        return f"nothing would be removed: {percent:g} of {total} channels is less than one"
    return (
        f"nothing would be removed: no group can lose channels at multiples of {limits.round_to} "
        f"and keep {limits.min_channels}"
    )
