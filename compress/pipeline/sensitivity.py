"""`compress sensitivity`: what every group of channels and every residual block is worth."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from compress.core.errors import CompressError, PlanError
from compress.core.progress import Progress, Silent
from compress.core.types import Group
from compress.evaluation.precision import together
from compress.evaluation.variants import Costing, Measured, Policy, Tally, Variant, measure
from compress.graph.analyse import Analysis, analyse
from compress.graph.costs import norm_scales
from compress.graph.prefix import first_reading, recorded
from compress.graph.residual import Block, blocks
from compress.graph.trace import Trace
from compress.importance import CRITERIA, Weights, default_criterion, score
from compress.pipeline.exploring import ExploreOptions, Subject, subject
from compress.report.sensitivity import BlockLoss, GroupLoss, Sensitivity
from compress.surgery.sharing import cut_sharing, own_bytes

SHARES = tuple(step / 10 for step in range(1, 10))
MEMORY = 2**30  # bytes of networks that are measured side by side


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityOptions:
    """Everything that `compress sensitivity` can be told; `importance` None is automatic."""

    explore: ExploreOptions
    importance: str | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """One network to measure: a block's, or a group's with so many channels gone."""

    variant: Variant
    size: int
    block: Block | None = None
    group: str = ""
    removed: int = 0


def run_sensitivity(options: SensitivityOptions, progress: Progress | None = None) -> Sensitivity:
    """Do what `compress sensitivity` does, and return every figure. Raises CompressError subclasses."""
    told = progress or Silent()
    if options.importance is not None:
        CRITERIA[options.importance]
    about = subject(options.explore, told)
    module, example = about.network.module, about.network.example
    start = time.perf_counter()
    with told.stage("analyse"):
        analysis, run = analyse(module, example), recorded(module, tuple(example))
        found = blocks(run)
    groups = analysis.prunable
    if not groups and not found:
        raise PlanError("no channel may leave, and there is no residual block", fix="`compress inspect` says why")
    with told.stage("calibrate"):
        weights = Weights(analysis.tensors, norm_scales(analysis.traces), about.evidence)
        name = options.importance or default_criterion(groups, weights)
        scores, unjudged = score(groups, weights, name)
    orders = {g.name: np.argsort(scores[g.name], kind="stable") for g in groups if g.name in scores}
    judged = [g for g in groups if g.name in orders]
    failed: list[str] = []
    prepared = time.perf_counter() - start
    results: dict[tuple[str, int], Tally] = {}
    passes: list[Measured] = []
    making = time.perf_counter()
    for batch in _batches(_asked(about, analysis, run, found, judged, orders, failed)):
        prepared += time.perf_counter() - making
        done = measure(
            module, [one.variant for one in batch], about.data, told, run=run, limit=options.explore.images,
            fixed=about.fixed, seed=options.explore.seed, policy=Policy(),
            name=f"measure {batch[-1].group or 'blocks'}",
        )  # fmt: skip
        passes.append(done)
        for one, tally in zip(batch, done.variants, strict=True):
            results[one.block.key if one.block else one.group, one.removed] = tally
        if not done.complete:
            break
        making = time.perf_counter()
    notes = [*failed, *dict.fromkeys(note for done in passes for note in done.notes)]
    notes += [f"importance {name!r} cannot judge {len(unjudged)} groups: {', '.join(unjudged[:5])}"] if unjudged else []
    return Sensitivity(
        origin=about.origin("sensitivity"),
        importance=name,
        formula=CRITERIA[name].formula,
        ranked_on=about.seen if CRITERIA[name].needs else "the weights",
        shares=SHARES,
        original=passes[0].original,
        groups=tuple(_group(g, results) for g in judged),
        blocks=tuple(_block(b, run, results[b.key, 0]) for b in found if (b.key, 0) in results),
        images=passes[-1].images,
        asked=passes[0].asked,
        complete=passes[-1].complete,
        prepared=prepared,
        costing=_sum(passes),
        precision=together([done.precision for done in passes]),
        notes=tuple(notes),
    )


def removed_of(group: Group) -> tuple[int, ...]:
    """How many channels 10 ... 90 % of the group are; one stays."""
    return tuple(min(max(round(group.size * share), 1), group.size - 1) for share in SHARES)


def _asked(
    about: Subject,
    analysis: Analysis,
    run: Trace,
    found: Sequence[Block],
    groups: Sequence[Group],
    orders: dict[str, np.ndarray],
    failed: list[str],
) -> Iterator[_Asked]:
    """The networks, made one after the other; groups that cannot be cut so are noted in `failed`."""
    for block in found:
        yield _Asked(Variant(about.network.module, block.first, block.leaving), 0, block)
    for group in groups:
        for removed in sorted(set(removed_of(group)) - {0}):
            try:
                gone = group.labels[orders[group.name][:removed]]
                module, changed = cut_sharing(about.network, analysis, gone)
            except CompressError as error:
                failed.append(f"{group.name} without {removed} channels: {error.what}")
                continue
            variant = Variant(module, first_reading(run, changed))
            yield _Asked(variant, own_bytes(module, changed), None, group.name, removed)


def _batches(asked: Iterator[_Asked]) -> Iterator[list[_Asked]]:
    """As many at a time as `MEMORY` holds."""
    batch: list[_Asked] = []
    for one in asked:
        if batch and sum(other.size for other in batch) + one.size > MEMORY:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def _group(group: Group, results: dict[tuple[str, int], Tally]) -> GroupLoss:
    removed = removed_of(group)
    return GroupLoss(group.name, group.size, removed, tuple(results.get((group.name, n)) for n in removed))


def _block(block: Block, run: Trace, reached: Tally) -> BlockLoss:
    elements = sum(int(np.prod(run.shapes[run.parameters[n]])) for n in block.parameters if "running_" not in n)
    return BlockLoss(block.name, block.key, block.identity, elements, block.macs // max(run.batch, 1), reached)


def _sum(passes: Sequence[Measured]) -> Costing:
    costs = [done.costing for done in passes]
    return replace(
        costs[0],
        total=sum(c.total for c in costs),
        computed=sum(c.computed for c in costs),
        skipped=sum(c.skipped for c in costs),
    )
