"""From a network and a few options to the cut network: analyse, score, choose, cut, verify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from compress.budget import Limits, Problem, choose
from compress.core.budgets import Budget
from compress.core.choosing import Attention, Scope
from compress.core.clock import Clock
from compress.core.collector import uncollected
from compress.core.errors import PlanError, UsageError
from compress.core.types import Costs, Group, Plan
from compress.graph.analyse import Analysis, analyse
from compress.graph.costs import costs, norm_scales
from compress.importance import Evidence, Weights, default_criterion, score
from compress.surgery.adapt import Adapted, adapted
from compress.surgery.cut import dead_labels, dead_of, plan_of, sizes_after
from compress.surgery.deliver import Delivered, Refused, as_rewritten, own_class
from compress.surgery.silence import Masked

_TARGETS = "percent=0.5 removes half of the channels; macs=0.5 leaves half of the MACs; plan replays a plan"


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOptions:
    """How channels are chosen: for a `budget`, or as a `plan` says. `importance` None is automatic.

    `submodule` is the path of the one part of the network that is cut, inside its place; None for all of it.
    `evidence` is what criteria may look at that need inputs.
    """

    budget: Budget | None = None
    scope: Scope = Scope.GLOBAL
    importance: str | None = None
    limits: Limits = field(default_factory=Limits)
    attention: Attention = Attention.HEADS
    plan: Plan | None = None
    submodule: str | None = None
    verify: bool = True
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.budget is not None and self.plan is not None:
            raise UsageError("say how much to remove, once: not a budget and a plan together", fix=_TARGETS)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The plan, and how it came (`criterion` None: replayed); `total` channels were free; `unjudged` groups stay.

    `notes` say what the user has to know of how the budget was met; `step` is what widths are multiples of
    where that was measured on the way.
    """

    plan: Plan
    criterion: str | None
    total: int
    unjudged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """The cut network with everything that later stages need to judge it; `masked` is the masked original.

    `analysis` and `dead` are of the submodule where only that was cut; costs are the whole network's.
    """

    delivered: Delivered
    chosen: Chosen
    analysis: Analysis
    dead: np.ndarray
    masked: nn.Module
    before: Costs
    after: Costs


def cut_whole(
    module: nn.Module, example: tuple[Any, ...], options: CutOptions, clock: Clock, *, dynamic_batch: bool = True
) -> Cut:
    """Cut `module`, which is left untouched; the options name no submodule.

    Raises PlanError where nothing can leave, ExactnessError where the cut is not exact, TraceError where the network
    does not run.
    """
    with clock.stage("analyse"), uncollected():
        attention = options.plan.attention if options.plan is not None else options.attention
        analysis = analyse(module, example, attention=attention)
        groups = analysis.prunable
    with clock.stage("plan"), uncollected():
        if options.plan is not None:
            chosen, dead = _replayed(options.plan, analysis)
        else:
            chosen, dead = _chosen(analysis, groups, options)
    with clock.stage("cut and verify" if options.verify else "cut"):
        own = own_class(module, example, analysis, dead, verify=options.verify)
        if isinstance(own, Refused) and own.parts is not None and options.plan is None:
            free = Adapted(analysis, own, chosen, dead, ())
            again = adapted(module, example, free, lambda a: _chosen(a, a.prunable, options), verify=options.verify)
            if again is not None:
                own, chosen, analysis, dead = again.delivered, again.choice, again.analysis, again.dead
        if isinstance(own, Delivered):
            delivered = own
        else:
            how = {"verify": options.verify, "dynamic_batch": dynamic_batch}
            delivered = as_rewritten(module, example, analysis, chosen.plan, dead, why=own.why, **how)
    before = costs(module, analysis.traces[0])
    after = costs(delivered.module, analysis.traces[0], sizes_after(analysis, dead))
    return Cut(delivered, chosen, analysis, dead, Masked(module, analysis, dead), before, after)


def _replayed(plan: Plan, analysis: Analysis) -> tuple[Chosen, np.ndarray]:
    if not plan.keep:
        raise PlanError("the plan removes nothing", fix="replay a plan that --plan-out wrote")
    return Chosen(plan, None, sum(g.size for g in analysis.prunable)), dead_labels(analysis, plan)


def _chosen(analysis: Analysis, groups: Sequence[Group], options: CutOptions) -> tuple[Chosen, np.ndarray]:
    weights = Weights(analysis.tensors, norm_scales(analysis.traces), options.evidence)
    if options.budget is None:
        raise UsageError("say how much to remove", fix=_TARGETS)
    name = options.budget.criterion or options.importance or default_criterion(groups, weights)
    scores, unjudged = score(groups, weights, name)
    choice = choose(options.budget, Problem(analysis, groups, scores, options.limits, options.scope))
    chosen = Chosen(plan_of(analysis, choice.channels), name, choice.total, unjudged, choice.notes)
    return chosen, dead_of(analysis, choice.channels)
