"""Every figure of a run as JSON: the keys name the quantity, `units` says what it is counted in."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from compress.core.files import written_whole
from compress.core.types import Accuracy
from compress.report.types import SlimReport

FORMAT = "compress-report-1"

UNITS: Mapping[str, str] = {
    "agreement": "fraction of inputs, in [0, 1]",
    "batch": "inputs per forward pass",
    "bytes": "bytes",
    "channels": "channels",
    "distance": "sum of squared differences / sum of squares, of the outputs",
    "held_out": "fraction of the images held out of a training, in [0, 1]",
    "images": "images",
    "latency": "seconds per batch; ratio, low and high are after / before",
    "loss": "nats per image",
    "macs": "multiply-accumulates of one forward pass at batch 1",
    "max_relative_error": "largest absolute difference / largest absolute value",
    "parameters": "parameters",
    "per_class": "fraction of the class's images, in [0, 1]",
    "cut.budget": "left: a fraction of the original's, or above 1 a number; percent: a fraction of the channels",
    "removed": "channels",
    "search": "asked, left: fractions of the original's MACs; reached, original, least: top-1 or agreement, in [0, 1]",
    "seconds": "seconds of wall time",
    "top1": "fraction of images, in [0, 1]",
    "top5": "fraction of images, in [0, 1]",
}


def to_json(report: SlimReport) -> str:
    """Return `report` as a JSON text that ends in a newline; a number that is not finite becomes null."""
    return json.dumps(finite(_tree(report)), indent=2, allow_nan=False) + "\n"


def write_json(report: SlimReport, path: Path) -> None:
    """Write `report` to `path`, whole or not at all; UsageError where that is impossible."""
    with written_whole(path) as temporary:
        temporary.write_text(to_json(report), encoding="utf-8")


def _tree(report: SlimReport) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "units": dict(UNITS),
        "command": report.command,
        "seed": report.seed,
        "threads": report.threads,
        "batch": report.batch,
        "versions": dict(report.versions),
        "machine": dict(report.machine),
        "source": _plain(report.source),
        "cut": _plain(report.cut),
        "exactness": None if report.verdict is None else {**_plain(report.verdict), "exact": report.verdict.exact},
        "delivered": {"what": report.delivered, "why": report.delivered_why},
        "recovered": report.recovered,
        "calibration": report.calibration,
        "trained_on": report.trained_on,
        "stages": [_plain(stage) for stage in report.stages],
        "steps": [_plain(step) for step in report.steps],
        "search": None if report.search is None else _plain(report.search),
        "costs": {"before": _plain(report.costs_before), "after": _plain(report.costs_after)},
        "file_bytes": None if report.file_sizes is None else _plain(report.file_sizes),
        "data": report.data,
        "accuracy": {
            "original": _accuracy(report.accuracy_original),
            "masked": _accuracy(report.accuracy_masked),
            "pruned": _accuracy(report.accuracy_pruned),
        },
        "agreement": report.agreement,
        "agreement_on": report.agreement_on,
        "latency": [_plain(speedup) for speedup in report.speedups],
        "exported": [_plain(file) for file in report.exported],
        "deployment": [_plain(step) for step in report.deployment],
        "saved": report.saved,
        "plan_out": report.plan_out,
        "seconds": dict(report.seconds),
        "warnings": list(report.warnings),
    }


def _accuracy(accuracy: Accuracy | None) -> dict[str, Any] | None:
    return None if accuracy is None else _plain(accuracy)


def _plain(record: Any) -> dict[str, Any]:
    return dataclasses.asdict(record)


def finite(value: Any) -> Any:
    """Return `value` as JSON can hold it: enums by value, numbers that are not finite as None, others as text."""
    match value:
        case Enum():
            return value.value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): finite(item) for key, item in value.items()}
        case list() | tuple():
            return [finite(item) for item in value]
        case str() | int() | None:
            return value
        case _:
            return str(value)
