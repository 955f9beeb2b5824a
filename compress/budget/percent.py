"""A fraction of the channels: of all of them, ranked over the network (network slimming), or of each group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compress.budget.blocks import Limits, blocks_of, protected
from compress.core.errors import PlanError, UsageError
from compress.core.types import Group, Scope
from compress.importance import Scores


@dataclass(frozen=True, slots=True)
class Choice:
    """Which channels leave: `channels` are the groups' labels; `total` counts the channels that were free to leave."""

    channels: np.ndarray
    total: int


def choose(groups: Sequence[Group], scores: Scores, percent: float, scope: Scope, limits: Limits) -> Choice:
    """Choose `int(total * percent)` channels, as nearly as blocks allow.

    Raises UsageError where `percent` is outside [0, 1), PlanError where nothing can leave, with the reason.
    """
    if not 0 <= percent < 1:
        raise UsageError(f"--percent must be in [0, 1), got {percent}", fix="0.5 removes half of the channels")
    free = [g for g in groups if g.prunable and g.name in scores and not protected(g, limits.keep)]
    total = sum(g.size for g in free)
    if not free:
        raise PlanError("no channel is free to leave: every group is pinned or kept", fix="`compress inspect` says why")
    ranked = [blocks_of(i, g, scores[g.name], limits) for i, g in enumerate(free)]
    if scope is Scope.GLOBAL:
        pools = [(int(total * percent), sorted((b for blocks in ranked for b in blocks), key=lambda b: b.score))]
    else:
        pools = [(int(g.size * percent), blocks) for g, blocks in zip(free, ranked, strict=True)]
    gone: list[np.ndarray] = []
    for target, blocks in pools:
        left = 0
        for block in blocks:
            size = len(block.channels)
            if left + size / 2 > target or left >= target:  # the nearer of with and without this block
                if scope is Scope.LAYER or left >= target:
                    break
                continue
            gone.append(free[block.group].labels[block.channels])
            left += size
    if not gone:
        raise PlanError(_why_nothing(percent, total, limits), fix="raise --percent, or use --round-to 1")
    return Choice(np.concatenate(gone), total)


def _why_nothing(percent: float, total: int, limits: Limits) -> str:
    if int(total * percent) == 0:
        return f"nothing would be removed: {percent:g} of {total} channels is less than one"
    return (
        f"nothing would be removed: no group can lose channels at multiples of {limits.round_to} "
        f"and keep {limits.min_channels}"
    )
