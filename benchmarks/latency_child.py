"""One measurement of one network, in a process of its own; called by latency.py."""

from __future__ import annotations

import copy
import json
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

HALF = 0.5
ROUND_TO = (1, 8, 16)
TRIES = 5  # of Torch-Pruning's ratio, halving the interval
ROUNDS, SECONDS = 20, 4.0
RUNS = 20
SAME = 0.05  # Torch-Pruning's MACs count as as many where they differ from ours by at most this share
CALIBRATION, HELD_OUT = 48, 16


def prepare(name: str, folder: str) -> dict[str, Any]:
    """Write the original, our cut and Torch-Pruning's cuts of as many MACs as ONNX files; return their MACs."""
    from spine_child import make

    import compress
    from compress.export import export
    from compress.graph.costs import macs
    from compress.graph.trace import trace

    place = Path(folder)
    known = place / f"{name}.json"
    if known.is_file():
        return json.loads(known.read_text())
    module, x = make(name)
    start = macs(trace(module, (x,)))
    ours = compress.slim(module, x, macs=HALF, importance="l2")
    found: dict[str, Any] = {"ours": ours.report.costs_after.macs / start, "round_to": ours.report.cut.round_to}
    export(module, (x,), place / f"{name}-before.onnx")
    export(ours.model, (x,), place / f"{name}-ours.onnx")
    for block in ROUND_TO:
        try:
            peer, found[f"tp{block}"] = _peer(module, x, block, found["ours"] * start, start)
            export(peer, (x,), place / f"{name}-tp{block}.onnx")
        except Exception as error:  # noqa: BLE001 - the record says what happened
            found[f"tp{block}"] = None
            found[f"tp{block}_error"] = f"{type(error).__name__}: {error}"[:200]
    known.write_text(json.dumps(found))
    return found


def _peer(module: nn.Module, x: Tensor, block: int, target: float, start: int) -> tuple[nn.Module, float]:
    """Cut with Torch-Pruning, the same share of every layer, until the MACs are nearest to ours; and their share."""
    import torch_pruning as tp

    from compress.graph.costs import macs
    from compress.graph.trace import trace

    low, high = 0.0, 0.9
    best: tuple[float, nn.Module, float] | None = None
    for _ in range(TRIES):
        ratio = (low + high) / 2
        peer = copy.deepcopy(module)
        head = [m for m in peer.modules() if isinstance(m, nn.Linear)][-1]
        how = {"importance": tp.importance.MagnitudeImportance(p=2), "ignored_layers": [head]}
        tp.pruner.MagnitudePruner(peer, x[:1], pruning_ratio=ratio, round_to=block, **how).step()
        left = macs(trace(peer, (x,)))
        if best is None or abs(left - target) < abs(best[0] - target):
            best = (left, peer, left / start)
        low, high = (ratio, high) if left > target else (low, ratio)
    assert best is not None
    return best[1], best[2]


def half(name: str, folder: str) -> dict[str, Any]:
    """Time all files of the network in the same rounds, with the original's second load as control."""
    from compress.measure.rounds import interleaved
    from compress.measure.runners import onnxruntime_runner
    from compress.measure.statistics import paired, spread

    files = {label: Path(folder) / f"{name}-{label}.onnx" for label in ("before", "ours", "tp1", "tp8", "tp16")}
    there = {label: path for label, path in files.items() if path.is_file()}
    paths = [*there.values(), there["before"]]
    runners = [onnxruntime_runner(path, batch=1, threads=1) for path in paths]
    times = interleaved(runners, rounds=ROUNDS, max_seconds=SECONDS * len(runners))
    by_label = dict(zip([*there, "control"], times, strict=True))
    before, control = by_label["before"], by_label["control"]
    ratios = {label: asdict(paired("before", before, by_label[label], control)) for label in there if label != "before"}
    share = json.loads((Path(folder) / f"{name}.json").read_text())
    found: dict[str, Any] = {"latency": ratios, "before": spread(before).p50, "rounds": len(before)}
    made = [label for label in there if label.startswith("tp") and share[label]]
    peers = [label for label in made if abs(share[label] / share["ours"] - 1) <= SAME]
    if peers:
        best = min(peers, key=lambda label: ratios[label]["ratio"])
        found |= {"best": best, "against_best": asdict(paired(best, by_label[best], by_label["ours"], control))}
    return found


def target(name: str, folder: str) -> dict[str, Any]:
    """Cut for half of the latency, find the budget of MACs that takes as long, and compare what both still compute."""
    from spine_child import make

    from compress.budget.blocks import Limits
    from compress.core.budgets import Latency, Macs
    from compress.core.clock import Clock
    from compress.core.progress import Silent
    from compress.export import export
    from compress.measure.latency import compare
    from compress.measure.machine import kernel_block
    from compress.measure.runners import onnxruntime_runner
    from compress.pipeline import making as _making  # noqa: F401 - enters how a latency is met
    from compress.pipeline.job import Job, cut_for
    from compress.surgery.planned import CutOptions

    module, x = make(name)
    place = Path(folder)
    options = CutOptions(budget=Latency(HALF), importance="l2", limits=Limits(kernel_block()), verify=False)
    parts: dict[str, Any] = {"told": Silent(), "clock": Clock(), "look": lambda _: None, "win_back": lambda *_: ()}
    job = Job(module=module, example=(x,), options=options, **parts)
    cut = cut_for(Latency(HALF, stepped=True), job)
    export(module, (x,), place / "t-before.onnx")
    export(cut.delivered.module, (x,), place / "t-latency.onnx")

    def timed(one: str, two: str) -> Any:
        pair = [onnxruntime_runner(place / f"t-{label}.onnx", batch=1, threads=1) for label in (one, two)]
        return compare(pair[0], pair[1], max_seconds=8.0)

    reached = timed("before", "latency")
    budget, tries = reached.ratio, []
    for _ in range(3):
        other = job.cut(budget=Macs(min(budget, 0.99)))
        export(other.delivered.module, (x,), place / "t-macs.onnx")
        ratio = timed("latency", "macs")
        tries.append((abs(ratio.ratio - 1), budget, ratio, other))
        if abs(ratio.ratio - 1) < 0.03:
            break
        budget /= ratio.ratio
    _, budget, ratio, other = min(tries, key=lambda t: t[0])
    plans = {"latency": cut.chosen.plan, "macs": other.chosen.plan}
    return {
        "reached": asdict(reached),
        "step": cut.chosen.step,
        "table_seconds": job.clock.seconds["latency table"],
        "notes": list(cut.chosen.notes),
        "macs_share": cut.after.macs / cut.before.macs,
        "macs_budget": budget,
        "macs_against_latency": asdict(ratio),
        "error": {label: _error(module, x, plan) for label, plan in plans.items()},
    }


def _error(module: nn.Module, x: Tensor, plan: Any) -> dict[str, float]:
    """Sum of squared differences to the outputs over that of these to their mean, on held-out inputs."""
    import compress

    torch.manual_seed(1)
    learned, held = torch.randn(CALIBRATION, *x.shape[1:]), torch.randn(HELD_OUT, *x.shape[1:])
    raw = compress.slim(module, x, plan=plan, verify=False).model
    recovered = compress.slim(module, x, plan=plan, calibration=learned, verify=False).model
    with torch.inference_mode():
        want = module(held)
        mean = want.mean(0)
        scale = float((want - mean).square().sum())
        return {
            label: float((net.eval()(held) - want).square().sum()) / scale
            for label, net in (("raw", raw), ("recovered", recovered))
        }


def same(name: str, folder: str) -> dict[str, Any]:
    """Compare a file with itself as `compress bench` does, several times, and count the intervals that hold 1."""
    from compress.core.measuring import Backend, Device
    from compress.pipeline.bench import BenchOptions, run_bench

    path = Path(folder) / f"{name}-before.onnx"
    if not path.is_file():
        from spine_child import make

        from compress.export import export

        module, x = make(name)
        export(module, (x,), path)
    intervals = []
    for _ in range(RUNS):
        options = BenchOptions(
            files=(path, path), backends=(Backend.ONNXRUNTIME,), device=Device.CPU, threads=(1,), rounds=20,
            max_seconds=3.0, fresh=False,
        )  # fmt: skip
        found = run_bench(options).standings[1].ratio
        assert found is not None
        intervals.append([found.low, found.high])
    return {
        "runs": RUNS,
        "hold_1": sum(low <= 1 <= high for low, high in intervals),
        "median_width": median(high - low for low, high in intervals),
        "intervals": intervals,
    }


def main() -> None:
    """Run one measurement and print its record."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    from spine_child import machine

    part, *arguments = sys.argv[1:]
    parts = {"machine": machine, "prepare": prepare, "half": half, "target": target, "same": same}
    print(json.dumps(parts[part](*arguments)))


if __name__ == "__main__":
    main()
