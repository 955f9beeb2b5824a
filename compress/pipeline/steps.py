"""Cut a little, win back, look again, and cut on: importance is that of the recovered network at every step."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from compress.budget.schedule import Way, part_of
from compress.core.budgets import Budget
from compress.core.errors import UsageError
from compress.core.types import Plan, Step
from compress.evaluation.stages import final
from compress.graph.analyse import Analysis, analyse
from compress.pipeline.job import Job, Made, cut_for, settled
from compress.surgery.cut import dead_labels
from compress.surgery.network import composed
from compress.surgery.planned import Cut
from compress.surgery.silence import Masked
from compress.surgery.submodule import find, inputs_of, replaced


def cut_in_steps(job: Job, steps: int) -> Made:
    """Approach the budget of the job in so many cuts, each followed by recovery; one plan holds all of them.

    Every cut is checked against the masked network that it was made from. Raises what a cut raises.
    """
    budget = job.options.budget
    if steps == 1 or budget is None:
        if steps > 1:
            raise UsageError("--steps approaches a budget, and a plan says itself what leaves", fix="leave --steps out")
        with job.told.stage("cut and verify"):
            cut = cut_for(budget, job)
        return Made(cut, job.win_back(job.module, cut))
    return _several(job, settled(budget, job), steps)


def _several(job: Job, budget: Budget, steps: int) -> Made:
    original = analysed(job)
    way, now, plan = Way(1, steps, original), job, None
    cuts: list[Cut] = []
    told: list[Step] = []
    sizes = {group.name: group.size for group in original.prunable}
    for number in range(1, steps + 1):
        start = time.perf_counter()
        way = replace(way, step=number, total=cuts[0].chosen.total if cuts else None, gone=_gone(cuts))
        limits = job.options.limits
        ratios = tuple((glob, 1 - way.share(1 - fraction)) for glob, fraction in limits.ratios)
        options = replace(now.options, limits=replace(limits, ratios=ratios, sizes=sizes))
        with job.told.stage(f"cut {number} of {steps}"):
            cut = cut_for(part_of(budget, way), replace(now, options=options))
        stages = job.win_back(now.module, cut)
        cuts.append(cut)
        plan = composed(plan, cut.chosen.plan)
        verdict = cut.delivered.verdict
        told.append(
            Step(
                macs=cut.after.macs,
                parameters=cut.after.parameters,
                max_relative_error=None if verdict is None else verdict.max_relative_error,
                reached=final(stages),
                seconds=time.perf_counter() - start,
            )
        )
        if number < steps:
            module = cut.delivered.module
            now = replace(now, module=module, options=replace(job.options, evidence=job.look(module)))
    assert plan is not None
    return Made(_as_one(job, original, cuts, plan), stages, tuple(told))


def analysed(job: Job) -> Analysis:
    """The analysis of the network, or of its part that is to be cut."""
    path, attention = job.options.submodule, job.options.attention
    if path is None:
        return analyse(job.module, job.example, attention=attention)
    return analyse(find(job.module, path), inputs_of(job.module, job.example, path), attention=attention)


def _gone(cuts: list[Cut]) -> int:
    """How many channels have left."""
    return sum(len(np.unique(cut.analysis.component[cut.dead])) for cut in cuts)


def _as_one(job: Job, original: Analysis, cuts: list[Cut], plan: Plan) -> Cut:
    """All cuts as one cut of the original; its verdict is that of the least exact of them."""
    path = plan.submodule
    dead = dead_labels(original, replace(plan, submodule=None))
    verdicts = [cut.delivered.verdict for cut in cuts]
    checked = [verdict for verdict in verdicts if verdict is not None]
    worst = max(checked, key=lambda verdict: verdict.max_relative_error) if len(checked) == len(cuts) else None
    if worst is not None:
        worst = replace(worst, reference=f"{worst.reference}, of each of {len(cuts)} cuts")
    part = job.module if path is None else find(job.module, path)
    masked = Masked(part, original, dead)
    last = cuts[-1]
    return replace(
        last,
        delivered=replace(last.delivered, own=all(cut.delivered.own for cut in cuts), verdict=worst),
        chosen=replace(last.chosen, plan=plan, total=cuts[0].chosen.total),
        analysis=original,
        dead=dead,
        masked=masked if path is None else replaced(job.module, path, masked),
        before=cuts[0].before,
    )
