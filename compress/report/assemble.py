"""Put what the stages found into one report."""

from __future__ import annotations

import importlib.metadata
import inspect
import platform
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from compress.evaluation.judge import Judged
from compress.graph.chain import widths
from compress.importance import CRITERIA
from compress.measure.machine import this_machine
from compress.report.types import CutFacts, GroupRow, SlimReport, Source
from compress.surgery.cut import sizes_after
from compress.surgery.deliver import Delivered
from compress.surgery.planned import Cut, CutOptions

PACKAGES = ("channel-compress", "torch", "torchvision", "onnx", "onnxruntime", "onnxsim", "numpy")


def report_of(
    cut: Cut, source: Source, seconds: Mapping[str, float], options: CutOptions, rounding: tuple[int, str]
) -> SlimReport:
    """Report on the cut; what was evaluated, exported and measured is filled in by the caller."""
    return SlimReport(
        source=source,
        cut=_facts(cut, options, rounding),
        verdict=cut.delivered.verdict,
        delivered=_delivered(cut.delivered),
        delivered_why=cut.delivered.why,
        costs_before=cut.before,
        costs_after=cut.after,
        seconds=dict(seconds),
        machine=asdict(this_machine()),
        versions=versions(),
        warnings=_warnings(cut),
    )


def widths_after(cut: Cut) -> tuple[int | str, ...] | None:
    """The widths of the cut network where it is a plain chain, with "M" for pooling; None for others."""
    return widths(cut.analysis.traces[0], sizes_after(cut.analysis, cut.dead).after)


def _facts(cut: Cut, options: CutOptions, rounding: tuple[int, str]) -> CutFacts:
    chosen = cut.chosen
    gone = np.zeros(cut.analysis.channels, dtype=bool)
    gone[cut.analysis.component[cut.dead]] = True
    rows = []
    for group in cut.analysis.groups:
        left = int((~gone[group.labels]).sum())
        rows.append(GroupRow(group.name, group.size, left, "; ".join(map(str, group.pinned)) or None))
    block, reason = rounding if chosen.criterion is not None else (1, "the plan's own widths")
    if options.budget is not None and options.budget.exact:
        block, reason = 1, "the widths that were named"
    first = cut.analysis.traces[0]
    return CutFacts(
        asked=_asked(options),
        budget={} if options.budget is None else {options.budget.option: asdict(options.budget)},
        scope=options.scope,
        importance=chosen.criterion or "plan",
        criterion=CRITERIA[chosen.criterion].formula if chosen.criterion is not None else "as the plan says",
        round_to=block,
        round_reason=reason,
        channels=chosen.total,
        removed=int(gone.sum()),
        groups=tuple(rows),
        cfg_before=widths(first, first.shapes.__getitem__),
        cfg_after=widths_after(cut),
    )


def judgement(judged: Judged) -> dict[str, Any]:
    """The fields of a report that tell how good the networks are."""
    return {
        "accuracy_original": judged.original,
        "accuracy_masked": judged.masked,
        "accuracy_pruned": judged.pruned,
        "data": judged.on if judged.original is not None else None,
        "agreement": judged.agreement,
        "agreement_on": judged.on if judged.agreement is not None else None,
    }


def _asked(options: CutOptions) -> str:
    if options.budget is not None:
        return str(options.budget)
    return "a replayed plan" if options.plan is not None else "the fewest MACs that a bound allows"


def _delivered(delivered: Delivered) -> str:
    kind = type(delivered.module)
    if not delivered.own:
        return "rewritten graph"
    if kind.__module__.startswith("_"):  # loaded from the file that --arch names, under a name of ours
        return f"your own class {kind.__qualname__} of {Path(inspect.getfile(kind)).name}"
    return f"your own class {kind.__module__}.{kind.__qualname__}"


def _warnings(cut: Cut) -> tuple[str, ...]:
    warnings = [
        f"{name} has no rule: the channels it touches stay (first met in {where})"
        for name, where in cut.analysis.unknown.items()
    ]
    left = cut.chosen.unjudged
    if left:
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        named = ", ".join(left[:5]) + more
        warnings.append(
            f"importance {cut.chosen.criterion!r} cannot judge {len(left)} groups, which stay whole: {named}"
        )
    return (*warnings, *cut.chosen.notes)


@cache
def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
