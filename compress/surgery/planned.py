"""From a network and a few options to the cut network: analyse, score, choose, cut, verify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import fx, nn

from compress.budget.blocks import Limits
from compress.budget.percent import choose
from compress.core.clock import Clock
from compress.core.errors import PlanError, UsageError
from compress.core.types import Attention, Costs, Group, Plan, Scope
from compress.graph.analyse import Analysis, analyse
from compress.graph.costs import costs, norm_scales
from compress.graph.instep import in_step
from compress.importance import Weights, default_criterion, score
from compress.surgery.cut import dead_labels, dead_of, plan_of, sizes_after
from compress.surgery.deliver import Delivered, as_rewritten, own_class


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOptions:
    """How channels are chosen. `importance` None is automatic; a `plan` replays an earlier cut instead."""

    percent: float | None = None
    scope: Scope = Scope.GLOBAL
    importance: str | None = None
    limits: Limits = field(default_factory=Limits)
    attention: Attention = Attention.HEADS
    plan: Plan | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.plan is None and self.percent is None:
            raise UsageError(
                "say how much to remove", fix="--percent 0.5 removes half of the channels; --plan replays a plan"
            )
        if self.percent is not None and not 0 <= self.percent < 1:
            raise UsageError(
                f"--percent must be in [0, 1), got {self.percent:g}", fix="0.5 removes half of the channels"
            )


@dataclass(frozen=True, slots=True)
class Chosen:
    """The plan, and how it came (`criterion` None: replayed); `total` channels were free; `unjudged` groups stay."""

    plan: Plan
    criterion: str | None
    total: int
    unjudged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cut:
    """The cut network with everything that later stages need to judge it."""

    delivered: Delivered
    chosen: Chosen
    analysis: Analysis
    dead: np.ndarray
    before: Costs
    after: Costs


def cut_network(
    module: nn.Module, example: tuple[Any, ...], options: CutOptions, clock: Clock, *, dynamic_batch: bool = True
) -> Cut:
    """Cut `module`, which is left untouched.

    Raises PlanError where nothing can leave, ExactnessError where the cut is not exact, TraceError where the network
    does not run.
    """
    with clock.stage("analyse"):
        attention = options.plan.attention if options.plan is not None else options.attention
        analysis = analyse(module, example, attention=attention)
        groups = analysis.prunable
    with clock.stage("plan"):
        if options.plan is not None:
            chosen, dead = _replayed(options.plan, analysis)
        else:
            chosen, dead = _chosen(analysis, groups, options)
    with clock.stage("cut and verify" if options.verify else "cut"):
        own = own_class(module, example, analysis, dead, verify=options.verify)
        if isinstance(own, str) and options.plan is None and not isinstance(module, fx.GraphModule):
            again = _in_step(module, example, analysis, options)
            if again is not None:
                own, chosen, analysis, dead = again
        if isinstance(own, Delivered):
            delivered = own
        else:
            how = {"verify": options.verify, "dynamic_batch": dynamic_batch}
            delivered = as_rewritten(module, example, analysis, chosen.plan, dead, why=own, **how)
    before = costs(module, analysis.traces[0])
    after = costs(delivered.module, analysis.traces[0], sizes_after(analysis, dead))
    return Cut(delivered, chosen, analysis, dead, before, after)


def _in_step(
    module: nn.Module, example: tuple[Any, ...], analysis: Analysis, options: CutOptions
) -> tuple[Delivered, Chosen, Analysis, np.ndarray] | None:
    """Choose again with attention heads in step with their stream; None where that is not followed either."""
    stepped = in_step(analysis)
    if stepped is None:
        return None
    try:
        chosen, dead = _chosen(stepped, stepped.prunable, options)
    except PlanError:
        return None
    own = own_class(module, example, stepped, dead, verify=options.verify)
    if isinstance(own, str):
        return None
    why = "heads leave together with the channels they read, which its code needs"
    return replace(own, why=f"{why}; {own.why}" if own.why else why), chosen, stepped, dead


def _replayed(plan: Plan, analysis: Analysis) -> tuple[Chosen, np.ndarray]:
    if not plan.keep:
        raise PlanError("the plan removes nothing", fix="replay a plan that --plan-out wrote")
    return Chosen(plan, None, sum(g.size for g in analysis.prunable)), dead_labels(analysis, plan)


def _chosen(analysis: Analysis, groups: Sequence[Group], options: CutOptions) -> tuple[Chosen, np.ndarray]:
    assert options.percent is not None
    weights = Weights(analysis.tensors, norm_scales(analysis.traces))
    name = options.importance or default_criterion(groups, weights)
    scores, unjudged = score(groups, weights, name)
    choice = choose(groups, scores, options.percent, options.scope, options.limits)
    chosen = Chosen(plan_of(analysis, choice.channels), name, choice.total, unjudged)
    return chosen, dead_of(analysis, choice.channels)
