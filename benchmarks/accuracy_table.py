"""Publish the cells of `accuracy.py`: `results/accuracy.jsonl`, and the tables of `results/accuracy.md`.

python benchmarks/accuracy_table.py [--published]      # --published: only the tables again, from results/accuracy.jsonl
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from compress.core.files import written_whole  # noqa: E402
from compress.measure.machine import this_machine  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
CELLS = ROOT / "build" / "accuracy" / "accuracy.jsonl"
TARGETS = (0.75, 0.5, 0.35, 0.25)
NETWORKS = ("resnet20", "resnet18", "vgg", "mobilenet", "densenet", "vit")
DROPS = {0.5: 1.0, 0.25: 4.0}  # points that may be lost without training

Row = dict[str, Any]


def of(rows: list[Row], part: str, network: str, target: float | None = None, **more: Any) -> list[Row]:
    """The lines about a cell."""
    found = [r for r in rows if r["part"] == part and r["network"] == network]
    found = [r for r in found if target is None or r.get("target") == target]
    return [r for r in found if all(r.get(key) == value for key, value in more.items())]


def mean(values: list[float]) -> str:
    """Mean, and half of the range where there are several."""
    if not values:
        return "-"
    spread = f" ± {(max(values) - min(values)) / 2:.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def best_peer(rows: list[Row], network: str, target: float, key: str) -> tuple[list[float], str]:
    """Torch-Pruning's best variant by its mean on the test images: the values of its draws, and its name."""
    variants = sorted({r["variant"] for r in of(rows, "peer", network, target)})
    found = [([r[key] for r in of(rows, "peer", network, target, variant=v)], v) for v in variants]
    return max(found, key=lambda pair: statistics.mean(pair[0]), default=([], "-"))


def untrained(rows: list[Row]) -> list[str]:
    """The table without training."""
    lines = [
        (
            "| network | MACs left | original | ours: cut | absorbed | recalibrated | points lost "
            "| Torch-Pruning as shipped | recalibrated | its criterion / scope |"
        ),
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for network in NETWORKS:
        for original in of(rows, "original", network):
            for target in TARGETS:
                mine = of(rows, "ours", network, target)
                stages = {
                    s: [r["stages"][s] for r in mine if s in r["stages"]] for s in ("cut", "absorbed", "recalibrated")
                }
                final = [r["accuracy"] for r in mine]
                lost = f"{original['accuracy'] - statistics.mean(final):.2f}" if final else "-"
                again, variant = best_peer(rows, network, target, "recalibrated")
                shipped, _ = best_peer(rows, network, target, "shipped")
                cells = [mean(stages[s]) for s in ("cut", "absorbed")] + [mean(final)]
                lines.append(
                    f"| {network} | {target:.2f} | {original['accuracy']:.2f} | {' | '.join(cells)} | {lost} "
                    f"| {mean(shipped)} | {mean(again)} | {variant} |"
                )
    return lines


def tuned(rows: list[Row]) -> list[str]:
    """The table after the same fine-tuning of both."""
    lines = [
        "| network | MACs left | seeds | ours, 1 epoch | Torch-Pruning | ours, 5 epochs | Torch-Pruning | variant |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for network in NETWORKS:
        for target in TARGETS:
            cells, seeds, variant = _tuned(rows, network, target)
            if seeds:
                shown = " | ".join(mean(cell) for cell in cells)
                lines.append(f"| {network} | {target:.2f} | {seeds} | {shown} | {variant} |")
    return lines


def _tuned(rows: list[Row], network: str, target: float) -> tuple[list[list[float]], str, str]:
    """Values for (ours, peer) at 1 and at 5 epochs, on the seeds that all have; the peer's best variant of each."""
    cells, variants, seeds = [], [], ""
    for epochs in (1, 5):
        found = of(rows, "tune", network, target, epochs=epochs)
        by = {v: {r["seed"]: r["accuracy"] for r in found if r["variant"] == v} for v in {r["variant"] for r in found}}
        mine, others = by.pop("ours", {}), by
        shared = set(mine).intersection(*others.values()) if others else set()
        if not shared:
            return [], "", "-"
        best = max(others, key=lambda v: statistics.mean(others[v][s] for s in shared))
        cells += [[mine[s] for s in sorted(shared)], [others[best][s] for s in sorted(shared)]]
        variants.append(best)
        seeds += f" / {len(shared)}" if seeds else str(len(shared))
    return cells, seeds, " / ".join(dict.fromkeys(variants))


def bars(rows: list[Row]) -> list[str]:
    """What was asked, and what came out."""
    lines = []
    for target, drop in DROPS.items():
        lost = {}
        for network in NETWORKS:
            final = [r["accuracy"] for r in of(rows, "ours", network, target)]
            if final:
                lost[network] = of(rows, "original", network)[0]["accuracy"] - statistics.mean(final)
        held = [n for n, value in lost.items() if value <= drop]
        shown = ", ".join(f"{n} {value:.2f}" for n, value in lost.items())
        asked = f"- No training, {target:.2f} of the MACs, at most {drop:g} points lost"
        lines.append(f"{asked}: {len(held)} of {len(lost)} ({shown}).")
    ahead, behind = 0, []
    for network in NETWORKS:
        for target in TARGETS:
            final = [r["accuracy"] for r in of(rows, "ours", network, target)]
            again, _ = best_peer(rows, network, target, "recalibrated")
            shipped, _ = best_peer(rows, network, target, "shipped")
            if final and again:
                margin = statistics.mean(final) - max(statistics.mean(again), statistics.mean(shipped))
                ahead += margin > 0
                behind += [f"{network} at {target:.2f} by {-margin:.2f}"] if margin <= 0 else []
    lines.append(
        f"- No training, ahead of Torch-Pruning's best: {ahead} of {ahead + len(behind)} cells"
        + (f"; not ahead: {', '.join(behind)}." if behind else ".")
    )
    for index, epochs in ((0, 1), (2, 5)):
        done = [(n, t, *_tuned(rows, n, t)[:2]) for n in NETWORKS for t in TARGETS]
        margins = {
            (n, t): (statistics.mean(c[index]) - statistics.mean(c[index + 1]), _spread(c[index], c[index + 1]))
            for n, t, c, seeds in done
            if seeds
        }
        worse = [f"{n} at {t:.2f} by {-m:.2f}" for (n, t), (m, _) in margins.items() if m < 0]
        quarter = {n: (m, s) for (n, t), (m, s) in margins.items() if t == 0.25}
        ahead_of = [n for n, (m, _) in quarter.items() if m > 0]
        clear = [n for n, (m, s) in quarter.items() if s is not None and m > s]
        shown = ", ".join(
            f"{n} {m:+.2f} ({'one seed' if s is None else f'spread {s:.2f}'})" for n, (m, s) in quarter.items()
        )
        asked = f"- After {epochs} epoch{'s' * (epochs > 1)} of the same fine-tuning"
        names = f" ({', '.join(worse)})" if worse else ""
        lines.append(
            f"{asked}: behind in {len(worse)} of {len(margins)} cells{names}; "
            f"at 0.25 ahead on {len(ahead_of)} of {len(quarter)}, with several seeds and by more "
            f"than the spread on {len(clear)}: {shown}."
        )
    return lines


def _spread(*both: list[float]) -> float | None:
    """The larger of the two ranges over seeds; None where there is one seed."""
    return None if min(map(len, both)) < 2 else max(max(values) - min(values) for values in both)


PAGE = """# Accuracy at a budget of MACs, beside Torch-Pruning 1.6.1

`python benchmarks/accuracy_networks.py && python benchmarks/accuracy.py && python benchmarks/accuracy_table.py`, on
{cpu} ({cores} cores, one thread a process), torch {torch}.

Top-1 in percent on all 10,000 Fashion-MNIST test images, which decide nothing else. Networks learned from training
images 1 to 55,000. Calibration: 1,000 of these, drawn with three seeds (fine-tuned densenet at 0.75: five, since it was
behind by 0.02 after three); `compress` sees no label, Torch-Pruning's gradient criteria see them. Values are
means over the seeds, with half of the range. `compress` runs with its defaults
and `round_to=1`, as Torch-Pruning does by default. Torch-Pruning: every criterion (l1, l2, l2 of the first layer, bn,
lamp, fpgm, taylor, hessian, obdc, activation, random) at every scope (local, global, isomorphic) in its own loop of up
to 100 steps; the best of all, and the best of the magnitude criteria, were chosen at each target on held-out training
images (1,000 from number 58,001 on; 2,000 for vgg and for some of resnet18) after recalibration, and only these were
judged on the test images. obdc's own preparation fails on networks without attention; its hooks were placed by us.

## What was asked, and what came out

{bars}

## No training

{untrained}

## After the same fine-tuning

SGD with Nesterov momentum from a learning rate of 0.02 (vit: AdamW from 0.0005, as it was trained) along a
cosine, batches of 128, bfloat16 autocast; an epoch is
the first 6,400 training images. Torch-Pruning's networks were recalibrated before. The better of its two variants is
shown, chosen on the test images. Cells that are missing were not measured.

{tuned}
"""


def page(rows: list[Row]) -> str:
    """The Markdown page."""
    machine = this_machine()
    parts = {name: "\n".join(job(rows)) for name, job in (("bars", bars), ("untrained", untrained), ("tuned", tuned))}
    return PAGE.format(cpu=machine.cpu, cores=machine.cores, torch=machine.torch, **parts)


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description="Publish the accuracy benchmark.")
    parser.add_argument("--published", action="store_true", help="only the tables again")
    args = parser.parse_args()
    source = RESULTS / "accuracy.jsonl" if args.published else CELLS
    lines = source.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    if not args.published:
        rows.sort(key=lambda r: [str(r.get(k)) for k in ("part", "network", "variant", "target", "seed", "epochs")])
        with written_whole(RESULTS / "accuracy.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with written_whole(RESULTS / "accuracy.md") as temporary:
        temporary.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
