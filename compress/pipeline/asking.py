"""From what was asked for by name to the records that the stages take: the same for the command line and for Python."""

from __future__ import annotations

from dataclasses import replace

from compress.budget.blocks import Limits
from compress.core.budgets import KINDS, Budget, Latency, NoChannels, Percent, asked
from compress.core.types import Plan
from compress.importance import CRITERIA
from compress.pipeline.options import SlimOptions
from compress.surgery.planned import CutOptions


def cut_options(options: SlimOptions, plan: Plan | None, block: int) -> CutOptions:
    """Return how channels are chosen; widths are multiples of `block`, and `plan` is replayed where there is one.

    Raises UsageError where two things are asked for that exclude each other, or a criterion that there is none of.
    """
    if options.importance is not None:
        CRITERIA[options.importance]  # an unknown name is told before anything is loaded
    return CutOptions(
        budget=_budget(options, plan),
        scope=options.scope,
        importance=options.importance,
        limits=Limits(block, options.min_channels, options.keep, options.ratio, options.max_ratio),
        attention=options.attention,
        plan=plan,
        submodule=options.submodule,
        verify=options.verify,
    )


def _budget(options: SlimOptions, plan: Plan | None) -> Budget | None:
    """The one budget that was named; where only ratios or blocks were, the one that takes nothing else."""
    budget = asked({name: getattr(options, name) for name in KINDS}, otherwise="--plan" if plan else None)
    if isinstance(budget, Latency):
        return replace(budget, batch=options.batch, stepped=options.round_to is None)
    if budget is not None or plan is not None or options.max_drop is not None or options.min_agreement is not None:
        return budget
    if options.ratio:
        return Percent(0)
    return NoChannels() if options.drop_blocks else None
