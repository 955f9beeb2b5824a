"""Put what the stages found into one report."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict


from compress.core.types import Scope
from compress.importance import CRITERIA
from compress.measure.machine import this_machine
from compress.report.types import CutFacts, GroupRow, SlimReport, Source
from compress.surgery.deliver import Delivered
from compress.surgery.planned import Cut

PACKAGES = ("channel-compress", "torch", "torchvision", "onnx", "onnxruntime", "onnxsim", "numpy")


def report_of(
    cut: Cut, source: Source, seconds: Mapping[str, float], *, percent: float | None, scope: Scope, rounding: tuple[int, str]
) -> SlimReport:
    """Report on the cut; what was evaluated, exported and measured is filled in by the caller."""
    return SlimReport(
        source=source,
        cut=_facts(cut, percent, scope, rounding),
        verdict=cut.delivered.verdict,
        delivered=_delivered(cut.delivered),
        delivered_why=cut.delivered.why,
        costs_before=cut.before,
        costs_after=cut.after,
        seconds=dict(seconds),
        machine={key: value for key, value in asdict(this_machine()).items()},
        versions=versions(),
        warnings=_warnings(cut),
    )


def _facts(cut: Cut, percent: float | None, scope: Scope, rounding: tuple[int, str]) -> CutFacts:
    chosen = cut.chosen
    keep = chosen.plan.keep
    gone = {
        int(channel)
        for name, dims in keep.items()
        for dim, kept in dims.items()
        if (labels := cut.analysis.parameters[name][dim]) is not None
        for channel in set(cut.analysis.component[labels].tolist()) - set(cut.analysis.component[labels[list(kept)]].tolist())
    }
    rows = []
    for group in cut.analysis.groups:
        left = group.size - sum(int(channel) in gone for channel in group.labels)
        rows.append(GroupRow(group.name, group.size, left, "; ".join(group.pinned) or None))
    block, reason = rounding if chosen.criterion is not None else (1, "the plan's own widths")
    return CutFacts(
        percent=percent if chosen.criterion is not None else None,
        scope=scope,
        importance=chosen.criterion or "plan",
        criterion=CRITERIA[chosen.criterion].formula if chosen.criterion is not None else "as the plan says",
        round_to=block,
        round_reason=reason,
        channels=chosen.total,
        removed=len(gone),
        groups=tuple(rows),
    )


def _delivered(delivered: Delivered) -> str:
    kind = type(delivered.module)
    return f"your own class {kind.__module__}.{kind.__qualname__}" if delivered.own else "rewritten graph"


def _warnings(cut: Cut) -> tuple[str, ...]:
    warnings = [
        f"{name} has no rule: the channels it touches stay (first met in {where})"
        for name, where in cut.analysis.unknown.items()
    ]
    left = cut.chosen.unjudged
    if left:
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        warnings.append(
            f"importance {cut.chosen.criterion!r} cannot judge {len(left)} groups, which stay whole: {', '.join(left[:5])}{more}"
        )
    return tuple(warnings)


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


