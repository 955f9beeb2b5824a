"""What every kind of budget is given, what it returns, and which function serves which kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, singledispatch

import numpy as np

from compress.budget.blocks import Block, Limits, blocks_of, makes, nearest, protected
from compress.budget.isomorphic import Topology, topologies
from compress.core.budgets import Budget
from compress.core.choosing import Scope
from compress.core.errors import UsageError
from compress.core.types import Group
from compress.graph.analyse import Analysis
from compress.importance import Scores


@dataclass(frozen=True)
class Problem:
    """Groups with a score a channel (larger stays), and what the choice has to respect."""

    analysis: Analysis
    groups: Sequence[Group]
    scores: Scores
    limits: Limits = field(default_factory=Limits)
    scope: Scope = Scope.GLOBAL

    @cached_property
    def free(self) -> list[Group]:
        """The groups that may lose channels."""
        return [g for g in self.groups if g.prunable and g.name in self.scores and not protected(g, self.limits.keep)]

    @cached_property
    def blocks(self) -> list[list[Block]]:
        """The blocks that may leave of every free group, least important first."""
        return [blocks_of(i, g, self.scores[g.name], self.limits) for i, g in enumerate(self.free)]

    @cached_property
    def settled(self) -> dict[int, int]:
        """Free groups that a ratio speaks for, by number, and how many of their blocks leave.

        Raises UsageError where a glob names none of the network's groups.
        """
        for glob, _ in self.limits.ratios:
            if not any(makes(group, glob) for group in self.groups):
                raise UsageError(
                    f"--ratio {glob!r} names no channels that may leave",
                    fix="name what makes them; `compress inspect` lists the groups",
                )
        asked = {number: self.limits.asked_of(group) for number, group in enumerate(self.free)}
        return {n: nearest(self.blocks[n], count) for n, count in asked.items() if count is not None}

    @cached_property
    def pools(self) -> list[list[int]]:
        """Numbers of the free groups that are ranked among each other; those that a ratio speaks for are in none."""
        numbers = [number for number in range(len(self.free)) if number not in self.settled]
        if self.scope is Scope.LAYER:
            return [[number] for number in numbers]
        if self.scope is Scope.GLOBAL:
            return [numbers]
        kinds = topologies(self.analysis, [self.free[number] for number in numbers])
        pools: dict[Topology, list[int]] = {}
        for number, kind in zip(numbers, kinds, strict=True):
            pools.setdefault(kind, []).append(number)
        return list(pools.values())


@dataclass(frozen=True, slots=True)
class Choice:
    """Which channels leave: `channels` are the groups' labels; `total` counts the channels that were free to leave.

    `notes` say what the user has to know: how far from the budget the choice ends, and why.
    """

    channels: np.ndarray
    total: int
    notes: tuple[str, ...] = ()


@singledispatch
def choose(budget: Budget, problem: Problem) -> Choice:
    """Choose channels so that the budget is met; each kind of budget registers its function here.

    Raises PlanError where the budget cannot be met, or where it asks for nothing.
    """
    del problem
    raise UsageError(f"nothing chooses channels for {type(budget).__name__}")
