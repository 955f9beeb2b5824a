"""What every kind of budget is given, what it returns, and which function serves which kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, singledispatch

import numpy as np

from compress.budget.blocks import Limits, protected
from compress.core.budgets import Budget
from compress.core.errors import UsageError
from compress.core.types import Group, Scope
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
