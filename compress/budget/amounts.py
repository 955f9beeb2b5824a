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
    shelves = Shelves(meter, free, _weighed(problem, meter, blocks), _order(problem))
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


def _weighed(problem: Problem, meter: Meter, blocks: Sequence[Sequence[Block]]) -> list[list[Block]]:
    """The blocks with scores that compare over the network: what a channel of the block is worth.

    Scores whose mean is 1 in every group rank within a group only. There a group weighs what its channels cost, so
    that a channel of average score is worth what it saves, and what has left counts against what stays, see `against`.
    Other scores are compared over the network as they are.
    """
    scores = [problem.scores[g.name] for g in problem.free]
    if not all(math.isclose(float(each.mean()), 1.0, rel_tol=1e-6) for each in scores):
        return [list(its) for its in blocks]
    found = []
    for group, each, its in zip(problem.free, scores, blocks, strict=True):
        first = its[0].channels if its else None
        worth = 0.0 if first is None else meter.saving(group.labels[first]) / len(first)
        found.append([block._replace(score=worth * block.score) for block in against(its, float(each.sum()))])
    return found


def against(blocks: Sequence[Block], total: float) -> list[Block]:
    """Return a group's blocks, in the order in which they leave, scored by how the lost grows against the kept.

    With T the `total` of the group's scores and K what of it stays, T (T / K - 1) is lost: at first what the scores of
    those that left add up to, and the dearer the more has left. A layer costs inputs x outputs: were the loss that sum
    only, the product would be least where one side is nearly gone and the other whole. Groups whose scores vary little
    (wide layers: the norm of a long vector does) would be spared altogether, and linear layers that stay whole take
    time out of proportion to their MACs, as their weights have to come from memory. To weigh against what survives is
    the idea of LAMP (Lee et al., ICLR 2021, arXiv:2010.07611), there for weights of one layer.

    >>> halves = [Block(0, np.array([0]), 1.0), Block(0, np.array([1]), 1.0)]
    >>> [block.score for block in against(halves, 3.0)]
    [1.5, 4.5]
    """
    found, kept = [], total
    for block in blocks:
        lost, size = block.score * len(block.channels), len(block.channels)
        found.append(block._replace(score=total * total * lost / (kept * (kept - lost)) / size))
        kept -= lost
    return found
