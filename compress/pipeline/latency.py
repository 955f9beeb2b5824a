"""A budget of latency: measure the layers, choose by prediction, measure the result, and correct the aim if need be."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch

from compress.budget.latency import layers_of
from compress.core.budgets import Latency
from compress.core.errors import PlanError, UsageError
from compress.core.types import Speedup
from compress.export import export
from compress.graph.analyse import analyse
from compress.measure.latency import compare
from compress.measure.latency_costs import costs_of, profile_of
from compress.measure.layer_store import device_of
from compress.measure.layer_table import table_of
from compress.measure.machine import this_machine
from compress.measure.rounds import interleaved
from compress.measure.runners import onnxruntime_runner
from compress.pipeline.job import Job, cut_for, settled
from compress.surgery.planned import Cut

# A result within this share of the target is near enough; farther off, the aim is corrected, so often at most.
NEAR = 0.04
CORRECTIONS = 2
# What the promise allows.
PROMISED = 0.10
ROUNDS = 15
STEP = "measured: the widths at which the time of the dearest layer jumps in onnxruntime on this machine"
CPU = "CPUExecutionProvider"


def rounded(cut: Cut, otherwise: tuple[int, str]) -> tuple[int, str]:
    """What widths are multiples of, and why: what was measured on the way, else as `otherwise` says."""
    return otherwise if cut.chosen.step is None else (cut.chosen.step, STEP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """The original's ONNX file, a folder for others, and how they are timed."""

    before: Path
    folder: Path
    threads: int
    batch: int


@cut_for.register
def cut_for_latency(budget: Latency, job: Job) -> Cut:
    """Cut so that onnxruntime's CPU kernels take at most the asked share of the original's latency, or time.

    Up to three cuts are tried: after each the latency is measured beside the original's, and the aim moved by what was
    measured over what was asked. The nearest one is returned; a target missed by more than a tenth is among its notes.
    Raises UsageError for a part of a network, ExportError where the network cannot be written as ONNX, PlanError where
    the latency cannot be met.
    """
    if job.options.submodule is not None:
        raise UsageError("--latency is the whole network's, and --submodule cuts a part", fix="leave one of them out")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = budget.batch if job.dynamic_batch else int(job.example[0].shape[0])
        where = Where(before=folder / "before.onnx", folder=folder, threads=torch.get_num_threads(), batch=rows)
        with job.told.stage("export for the latency table"), job.clock.stage("export"):
            export(job.module, job.example, where.before, dynamic_batch=job.dynamic_batch)
        budget = _measured(budget, job, where)
        assert budget.costs is not None
        limits, step = job.options.limits, None
        if budget.stepped:
            step = budget.costs.table.step
            limits = replace(limits, round_to=step)
        tries = _tried(budget, replace(job, options=replace(job.options, limits=limits)), where)
    _, aim, found = min(tries, key=lambda t: t[0])
    cut = job.cut(budget=replace(budget, aim=aim), limits=limits)
    notes = (*cut.chosen.notes, *_told(budget, found, len(tries)))
    return replace(cut, chosen=replace(cut.chosen, notes=notes, step=step))


@settled.register
def settled_latency(budget: Latency, job: Job) -> Latency:
    """Refuse: in steps, every step would be measured against another network."""
    del budget, job
    raise UsageError("--latency is met in one cut, and --steps asks for several", fix="leave one of them out")


def _tried(budget: Latency, job: Job, where: Where) -> list[tuple[float, float, Speedup]]:
    """Cut, measure, move the aim, until the latency is near; return how far off each try was, its aim, what it took."""
    tries: list[tuple[float, float, Speedup]] = []
    aim = 1.0
    for number in range(CORRECTIONS + 1):
        try:
            with job.told.stage(f"cut for latency, try {number + 1}"):
                cut = job.cut(budget=replace(budget, aim=aim), verify=False)
        except PlanError:
            if not tries:
                raise
            break
        found = _against(cut, job, where)
        off = found.ratio / _target(budget, found)
        tries.append((abs(off - 1), aim, found))
        if abs(off - 1) <= NEAR:
            break
        aim /= off
    return tries


def _measured(budget: Latency, job: Job, where: Where) -> Latency:
    """Return the budget with what has been measured: the whole network, its parts, and its layers at other widths."""
    recorded = analyse(job.module, job.example, attention=job.options.attention).traces[0]
    device = device_of(this_machine(), provider=CPU, threads=where.threads, batch=where.batch)
    with job.told.stage("latency table") as advance, job.clock.stage("latency table"):
        table = table_of(layers_of(recorded, where.batch), device, progress=advance)
        runner = onnxruntime_runner(where.before, batch=where.batch, threads=where.threads)
        (rounds,) = interleaved([runner], rounds=ROUNDS, max_seconds=5.0)
        whole = median(float(median(r)) for r in rounds)
        times = profile_of(where.before, batch=where.batch, threads=where.threads, provider=CPU)
    return replace(budget, costs=costs_of(recorded, table, times, whole=whole, batch=where.batch))


def _against(cut: Cut, job: Job, where: Where) -> Speedup:
    """Measure the cut network beside the original."""
    after = where.folder / "after.onnx"
    with job.told.stage("export the cut network"), job.clock.stage("export"):
        export(cut.delivered.module, job.example, after, dynamic_batch=job.dynamic_batch)
    with job.told.stage("check the latency", ROUNDS) as advance, job.clock.stage("measure"):
        pair = [onnxruntime_runner(p, batch=where.batch, threads=where.threads) for p in (where.before, after)]
        return compare(pair[0], pair[1], rounds=ROUNDS, progress=advance)


def _target(budget: Latency, found: Speedup) -> float:
    """The latency that was asked for, as a share of the original's measured one."""
    return budget.left if budget.left <= 1 else budget.left / (1e6 * found.before)


def _told(budget: Latency, found: Speedup, tries: int) -> tuple[str, ...]:
    """Say where the asked latency was missed by more than what is promised."""
    target = _target(budget, found)
    if abs(found.ratio / target - 1) <= PROMISED:
        return ()
    interval = f"[{found.low:.3f}, {found.high:.3f}]"
    missed = f"the latency is {found.ratio:.3f} {interval} of the original's, and {target:.3f} was asked for"
    return (f"missed: {missed}; the aim was corrected by what was measured, in {tries} cuts",)
