"""The smallest network whose measured answers stay within a bound: cut, win back, measure, and choose the next cut."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from compress.budget.amounts import meter_of
from compress.budget.search import Tried, search
from compress.core.bounds import Bound, MaxDrop
from compress.core.budgets import Macs
from compress.core.errors import PlanError, UsageError
from compress.core.types import Search, StageResult, Trial
from compress.graph.costs import macs
from compress.pipeline.job import Job, Made
from compress.pipeline.steps import analysed, cut_in_steps
from compress.surgery.cut import sizes_after

Reach = Callable[[nn.Module, tuple[StageResult, ...]], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How good a network is, in [0, 1]: `original` of the original, `reach` of a cut one, `on` which images."""

    original: float
    reach: Reach
    on: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pursuit:
    """What is asked for: a bound, in how many steps each cut is made, and how long all of it may take, in seconds."""

    bound: Bound
    steps: int = 1
    seconds: float | None = None


def cut_within(job: Job, asked: Pursuit, measure: Measure) -> Made:
    """Return the smallest network that was found within the bound.

    A budget of MACs in the job's options is the least that is tried. Raises PlanError, with all that was tried, where
    no cut holds the bound.
    """
    trials: list[Trial] = []
    held: list[Made] = []
    start = time.perf_counter()
    least = asked.bound.floor(measure.original)

    def attempt(share: float) -> Tried | None:
        """Cut to this share of the MACs and measure; None where no cut reaches it."""
        begun = time.perf_counter()
        options = replace(job.options, budget=Macs(share))
        try:
            made = cut_in_steps(replace(job, options=options), asked.steps)
        except PlanError:
            return None
        cut = made.cut
        whole = cut.analysis.traces[0]
        left = macs(whole, sizes_after(cut.analysis, cut.dead)) / macs(whole)  # of the part that is cut
        reached = measure.reach(cut.delivered.module, made.stages)
        holds = reached >= least - 1e-9
        took = time.perf_counter() - begun
        trials.append(Trial(asked=share, left=left, macs=cut.after.macs, reached=reached, holds=holds, seconds=took))
        if holds and (not held or cut.after.macs < held[0].cut.after.macs):
            held[:] = [made]
        return Tried(left, reached - least)

    def more() -> bool:
        longest = max((trial.seconds for trial in trials), default=0.0)
        return asked.seconds is None or time.perf_counter() - start + longest <= asked.seconds

    ended = search(attempt, measure.original - least, floor=_floor(job), more=more)
    path = Search(
        bound=str(asked.bound),
        on=measure.on,
        original=measure.original,
        least=least,
        trials=tuple(trials),
        ended=ended,
    )
    if not held:
        raise PlanError(_cannot(path, asked.bound), fix=_ADVICE)
    return replace(held[0], search=path)


_ADVICE = "allow more, give --calibration (more images), or add --finetune or --distill"


def _floor(job: Job) -> float:
    """The share of the MACs below which none is tried."""
    budget = job.options.budget
    if budget is None:
        return 0.0
    if not isinstance(budget, Macs):
        raise UsageError(f"--max-drop and --min-agreement combine with --macs, not with --{budget.option}")
    if budget.left <= 1:
        return budget.left
    meter = meter_of(budget, analysed(job))
    return min(budget.left / (meter.total / meter.per), 1.0)


def _cannot(path: Search, bound: Bound) -> str:
    what = "top-1" if isinstance(bound, MaxDrop) else "agreement"
    lines = [f"{100 * t.left:.1f} % of the MACs left: {what} {100 * t.reached:.2f} %" for t in path.trials]
    tried = "; ".join(lines) or "nothing could be tried"
    need = f"{what} must be at least {100 * path.least:.2f} % on {path.on}, and no cut reached that"
    return f"--{bound.option} cannot be met ({path.ended}): {need}. {tried}"
