"""As much as one can afford of something that is counted: MACs, parameters, bytes.

Blocks of channels leave in the order of importance per cost saved until the budget is met, and what still fits comes
back; see `shelf.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import singledispatch

import numpy as np

from compress.budget.blocks import Block
from compress.budget.choice import Choice, Problem, choose
from compress.budget.meter import Meter, bytes_meter, macs_meter, params_meter
from compress.budget.shelf import TOLERANCE, Shelves, cut_to
from compress.core.budgets import Amount, Bytes, Macs, Params, Size
from compress.core.choosing import Scope
from compress.core.errors import PlanError, UsageError
from compress.graph.analyse import Analysis


@singledispatch
def meter_of(budget: Amount, analysis: Analysis) -> Meter:
    """What counts for a kind of amount; each kind registers its own."""
    del analysis
    raise UsageError(f"nothing counts {budget.noun}")


@meter_of.register
def meter_of_macs(_: Macs, analysis: Analysis) -> Meter:
    """Count MACs of one input."""
    return macs_meter(analysis)


@meter_of.register
def meter_of_params(_: Params, analysis: Analysis) -> Meter:
    """Count parameters."""
    return params_meter(analysis)


@meter_of.register
def meter_of_bytes(_: Bytes | Size, analysis: Analysis) -> Meter:
    """Count bytes of the tensors that a file of the network holds."""
    return bytes_meter(analysis)


@choose.register
def choose_amount(budget: Amount, problem: Problem) -> Choice:
    """Choose channels so that at most the budget is left of what counts, as near below it as blocks allow.

    Raises PlanError where the budget cannot be met, with what can, or where it asks for nothing.
    """
    meter = meter_of(budget, problem.analysis)
    start = meter.total
    target = budget.of(start / meter.per) * meter.per
    if start <= target:
        raise PlanError(
            f"the network has only {start // meter.per:,} {budget.noun}: nothing has to leave",
            fix=f"lower --{budget.option}",
        )
    free, settled = problem.free, problem.settled
    gone = [free[n].labels[b.channels] for n, count in settled.items() for b in problem.blocks[n][:count]]
    for channels in gone:
        meter.remove(channels)
    blocks = [[] if n in settled else blocks for n, blocks in enumerate(problem.blocks)]
    shelves = Shelves(meter, free, blocks, _worth(problem, meter, blocks), _order(problem))
    if not cut_to(shelves, target):
        raise PlanError(
            f"--{budget.option} {budget.left:g} cannot be met: at least {meter.total // meter.per:,} {budget.noun} "
            f"({meter.total / start:.2f}) have to stay",
            fix="raise it, keep less, or use --round-to 1",
        )
    channels = np.concatenate([*gone, shelves.gone()])
    return Choice(channels, sum(g.size for g in free), _short(budget, shelves, target, problem.limits.round_to))


def _short(budget: Amount, shelves: Shelves, target: float, round_to: int) -> tuple[str, ...]:
    """Say how far below the budget the choice ends where that is more than the tolerance, and why."""
    total, per = shelves.meter.total, shelves.meter.per
    if target - total <= TOLERANCE * target:
        return ()
    back = [shelves.meter.returning(last) for n in range(len(shelves.left)) if (last := shelves.last(n)) is not None]
    why = "that much leaves by --ratio alone"
    if back:
        why = f"the smallest block of channels that could come back has {min(back) / per:,.0f} {budget.noun}"
    more = f"; widths are multiples of {round_to}: with --round-to 1 it ends nearer" if round_to > 1 else ""
    text = f"{total / per:,.0f} {budget.noun} are left, {100 * (1 - total / target):.1f} % below the budget"
    return (f"{text} of {target / per:,.0f}: {why}{more}",)


def _order(problem: Problem) -> list[list[float]] | None:
    """The share of its pool that has left with a block, for every block; None where costs have a say in the order.

    So every pool (a layer, a topology) loses the same share, by importance alone.
    """
    if problem.scope is Scope.GLOBAL:
        return None
    order = [[0.0] * len(blocks) for blocks in problem.blocks]
    for pool in problem.pools:
        size = sum(problem.free[number].size for number in pool)
        left = 0.0
        blocks = [(b.score, number, place) for number in pool for place, b in enumerate(problem.blocks[number])]
        for _, number, place in sorted(blocks):
            left += len(problem.blocks[number][place].channels)
            order[number][place] = left / size
    return order


def _worth(problem: Problem, meter: Meter, blocks: Sequence[Sequence[Block]]) -> list[float]:
    """What a score of 1 weighs in each group.

    Scores whose mean is 1 in every group rank within a group only: there a group weighs what its channels cost, so that
    a channel of average score is worth what it saves. Other scores are compared over the network as they are.
    """
    means = [float(problem.scores[g.name].mean()) for g in problem.free]
    if not all(math.isclose(mean, 1.0, rel_tol=1e-6) for mean in means):
        return [1.0] * len(means)
    worth = []
    for group, its in zip(problem.free, blocks, strict=True):
        first = its[0].channels if its else None
        worth.append(0.0 if first is None else meter.saving(group.labels[first]) / len(first))
    return worth
