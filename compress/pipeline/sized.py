"""A budget of file size: cut, write the file, measure it, and cut again until it fits.

How large the tensors of a network are is known beforehand; what the format adds, and what an exporter folds together,
is not. The line through what was measured (first of the original alone) foretells which size of the tensors gives the
file that was asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from compress.budget.meter import bytes_meter
from compress.budget.shelf import TOLERANCE
from compress.core.budgets import Budget, Bytes, Size
from compress.core.errors import PlanError
from compress.core.types import Exported, Network
from compress.export import export
from compress.pipeline.job import Job, cut_for, settled
from compress.surgery.planned import Cut

# How often it is cut before the best is taken, and where in the tolerance a cut aims at: never above the size.
TRIES = 6
AIM = 0.3


@cut_for.register
def cut_for_size(budget: Size, job: Job) -> Cut:
    """Cut so that the network's ONNX file takes at most the asked size, by at most 1 % less where blocks allow.

    Raises PlanError where that cannot be met, ExportError where the network cannot be written as ONNX.
    """
    before = _file(job.module, job.example, dynamic=job.dynamic_batch)
    wanted = budget.of(before)
    if before <= wanted:
        raise PlanError(f"the network takes only {before:,} bytes as ONNX: nothing has to leave", fix="lower --size")
    aim = wanted * (1 - AIM * TOLERANCE)
    target, points = Bytes(aim / before), list[tuple[float, float]]()
    best, most = None, 0
    for _ in range(TRIES):
        cut = job.cut(budget=target, verify=False)
        whole, left = _tensors(cut)
        taken = _file(cut.delivered.module, job.example, dynamic=job.dynamic_batch)
        points = [*(points or [(whole, before)]), (left, taken)]
        if most < taken <= wanted:
            best, most = target, taken
        if wanted * (1 - TOLERANCE) <= taken <= wanted or len({x for x, _ in points[-2:]}) < 2:
            break
        target = Bytes(max(_foretold(points, aim), 2.0))
    if best is None:
        raise PlanError(f"--size {budget.left:g} cannot be met: no cut of {TRIES} gave {wanted:,.0f} bytes or less")
    done = job.cut(budget=best)
    if most >= wanted * (1 - TOLERANCE):
        return done
    note = f"the ONNX file takes {most:,} bytes, {100 * (1 - most / wanted):.1f} % below the size that was asked for"
    return replace(done, chosen=replace(done.chosen, notes=(*done.chosen.notes, note)))


@settled.register
def settled_size(budget: Size, job: Job) -> Size:
    """In bytes."""
    return budget if budget.left > 1 else Size(budget.of(_file(job.module, job.example, dynamic=job.dynamic_batch)))


def _tensors(cut: Cut) -> tuple[int, int]:
    """Bytes of the tensors that a file holds, before the cut and after it."""
    meter = bytes_meter(cut.analysis)
    whole = meter.total
    meter.remove(np.unique(cut.analysis.component[cut.dead]))
    return whole, meter.total


def missed(budget: Budget | None, network: Network, cut: nn.Module, files: Sequence[Exported] = ()) -> tuple[str, ...]:
    """Say which files of the finished network take more than a budget of size allows; nothing for other budgets.

    Recovery and training change weights, and files hold more than the network (where they came from), so the promise
    is checked on the ONNX files that were written, of `network` cut to `cut`; without any, on one that is written for
    this.
    """
    if not isinstance(budget, Size):
        return ()
    how = network.example, network.dynamic_batch
    wanted = budget.left if budget.left > 1 else budget.of(_file(network.module, how[0], dynamic=how[1]))
    taken = {Path(made.path).name: made.bytes for made in files if made.target == "ONNX"}
    taken = taken or {"the ONNX file": _file(cut, how[0], dynamic=how[1])}
    return tuple(
        f"missed: {name} takes {much:,} bytes once the network is finished, and {wanted:,.0f} were asked for"
        for name, much in taken.items()
        if much > wanted
    )


def _file(module: nn.Module, example: tuple[Any, ...], *, dynamic: bool) -> int:
    """Bytes of the network's ONNX file."""
    with tempfile.TemporaryDirectory() as place:
        return export(module, example, Path(place) / "network.onnx", dynamic_batch=dynamic).bytes


def _foretold(points: list[tuple[float, float]], aim: float) -> float:
    (x0, y0), (x1, y1) = points[-2:]
    return x1 + (aim - y1) * (x1 - x0) / (y1 - y0)
