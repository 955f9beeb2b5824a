"""How few MACs the shipped network needs within one point of its accuracy: the default against magnitude pruning.

Every row is the same search (`--max-drop 1.0`), so that each way of cutting gets its smallest network within the
bound: by the default, and by magnitude (`l1`, `l2`) in one step, recovered as the default is and not at all. By default
channels leave in blocks that the runtime likes, which is coarse in so narrow a network; two rows do without. Accuracy
is on the 2,000 shipped test images, recovery learns from the 1,000 shipped calibration images without their labels.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compress.core.errors import PlanError
from compress.core.progress import Silent
from compress.measure.machine import this_machine
from compress.pipeline import SlimOptions, run_slim
from compress.report.assemble import versions

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
MODELS = ROOT / "models"
WAYS: dict[str, dict[str, Any]] = {
    "the default": {},
    "the default, stopped at a quarter": {"macs": 0.25},
    "l1, recovered": {"importance": "l1"},
    "l2, recovered": {"importance": "l2"},
    "l1, not recovered": {"importance": "l1", "recover": False},
    "l2, not recovered": {"importance": "l2", "recover": False},
    "the default, --round-to 1": {"round_to": 1},
    "l2, recovered, --round-to 1": {"importance": "l2", "round_to": 1},
}


def measured(points: float, round_to: int | None, given: dict[str, Any]) -> dict[str, Any]:
    """Search with one way of cutting; the share of the MACs that is left, and every try."""
    options = SlimOptions(
        checkpoint=MODELS / "fashion_resnet14.pt",
        arch=f"{MODELS / 'resnet.py'}:resnet14",
        calibration=str(MODELS / "fashion-mnist" / "calibration.npz"),
        data=str(MODELS / "fashion-mnist" / "test.npz"),
        max_drop=points,
        bench=False,
        **{"round_to": round_to, **given},
    )
    try:
        report = run_slim(options, Silent())
    except PlanError as error:
        return {"error": error.what}
    search, before, after = report.search, report.accuracy_original, report.accuracy_pruned
    assert search is not None
    assert before is not None
    assert after is not None
    return {
        "macs_left": report.costs_after.macs / report.costs_before.macs,
        "macs": report.costs_after.macs,
        "top1_before": before.top1,
        "top1_after": after.top1,
        "tries": [asdict(trial) for trial in search.trials],
        "seconds": sum(trial.seconds for trial in search.trials),
    }


def table(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    how = f"`{found['command']}`, models/fashion_resnet14.pt, top-1 on 2,000 Fashion-MNIST test images, at most"
    where = f"torch {found['versions']['torch']}, {found['machine']['cpu']}"
    lines = [
        "# The fewest MACs within a bound on accuracy",
        "",
        f"{how} {found['points']:g} points lost; {where}.",
        "",
        "| way of cutting | MACs left | top-1 before | after | cuts tried |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, row in found["ways"].items():
        if "error" in row:
            lines.append(f"| {name} | the bound was not met | | | |")
            continue
        accuracy = f"{100 * row['top1_before']:.2f} % | {100 * row['top1_after']:.2f} %"
        lines.append(f"| {name} | {row['macs_left']:.3f} | {accuracy} | {len(row['tries'])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every way, and write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=float, default=1.0)
    parser.add_argument("--round-to", type=int, default=None)
    parser.add_argument("--only", choices=[*WAYS], action="append", help="measure these ways anew, keep the rest")
    given = parser.parse_args()
    earlier = RESULTS / "max_drop.json"
    known = json.loads(earlier.read_text(encoding="utf-8"))["ways"] if given.only and earlier.exists() else {}
    found: dict[str, Any] = {
        "command": f"python benchmarks/max_drop.py --points {given.points:g}",
        "points": given.points,
        "versions": versions(),
        "machine": asdict(this_machine()),
        "ways": known,
    }
    for name in given.only or WAYS:
        found["ways"][name] = measured(given.points, given.round_to, WAYS[name])
        print(name, {key: value for key, value in found["ways"][name].items() if key != "tries"}, flush=True)
        (RESULTS / "max_drop.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        (RESULTS / "max_drop.md").write_text(table(found), encoding="utf-8")


if __name__ == "__main__":
    main()
